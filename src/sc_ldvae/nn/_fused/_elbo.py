"""The ELBO of a minibatch and its gradient, fused: what `LDVAE.forward` and its backward say, without autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sc_ldvae.nn._fused._count_loss import count_loss
from sc_ldvae.nn._fused._decoder import FusedDecoder
from sc_ldvae.nn._fused._encoder import FusedEncoders
from sc_ldvae.nn._fused._flat import Flat
from sc_ldvae.nn._fused._rising import empty_tables, tabulate_rising
from sc_ldvae.nn._fused._threads import n_parts
from sc_ldvae.nn._ldvae import Elbo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae.nn._fused._rows import SparseRows
    from sc_ldvae.nn._ldvae import LDVAE

    Array = NDArray[np.floating[Any]]


class _Draw(NamedTuple):
    """Posterior, prior and one draw of the normal variables, each n_cells x variables."""

    mean: Array
    variance: Array
    noise: Array
    sd: Array
    sample: Array
    prior_mean: Array
    prior_variance: Array


class _CountGradients(NamedTuple):
    u: Array
    log_library: Array
    decoder: Array
    theta_decoder: Array | None
    inflation: Array | None
    log_theta: Array | None


class FusedElbo:
    """A model's ELBO and gradient on the CPU, from sparse counts.

    Every mode of :class:`~sc_ldvae.nn.LDVAE`, the same draws from the same generator, the same values and gradients to
    rounding. The parameters of the module are moved into one buffer, `values`; `gradient` has the same layout.
    """

    def __init__(self, model: LDVAE) -> None:
        self._model = model
        flat = Flat(model)
        self.values, self.gradient = flat.values, flat.gradient
        # In the order of the model's parameter groups, so that each group is one stretch of the buffers.
        self._encoders = FusedEncoders(model, flat)
        self._decoder = FusedDecoder(model.decoder, flat)
        self._inflation = None if model.zi_decoder is None else FusedDecoder(model.zi_decoder, flat)
        self._theta_decoder = None if model.theta_decoder is None else FusedDecoder(model.theta_decoder, flat)
        self._log_theta = None if model.log_theta is None else flat.place(model.log_theta)
        self._library_prior = None
        if model.l_encoder is not None:
            self._library_prior = model.library_log_means.numpy(), model.library_log_vars.numpy()

    # What overflows shows in the ELBO, which the training loop checks.
    @np.errstate(all="ignore")
    def __call__(
        self,
        rows: SparseRows,
        annotations: Mapping[str, torch.Tensor],
        *,
        kl_weight: float = 1.0,
        prior_weight: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """Terms of the ELBO, each n_cells.

        In training mode `gradient` gets that of the loss: minus the mean ELBO at `kl_weight`, minus `prior_weight`
        times the model's `log_prior`.
        """
        model, training, n_latent = self._model, self._model.training, self._model.n_latent
        q = self._draw(rows, annotations, generator, training=training)
        distance = (q.mean - q.prior_mean) / q.prior_variance
        ratio = q.variance / q.prior_variance
        kl = 0.5 * (ratio + distance * (q.mean - q.prior_mean) - 1 - np.log(ratio))
        z, log_library = self._latent(q.sample), self._log_library(q.sample, rows, annotations)
        log_likelihood, d = self._counts(rows, z, log_library, annotations, training=training)
        kl_library = kl[:, n_latent] if model.l_encoder is not None else np.zeros_like(log_likelihood)
        if training:
            d_sample = d.u[:, :n_latent]
            if model.latent_distribution == "ln":
                d_sample = z * (d_sample - (d_sample * z).sum(1, keepdims=True))
            if model.l_encoder is not None:
                d_sample = np.column_stack([d_sample, d.log_library])
            weight = np.ones(q.mean.shape[1], q.mean.dtype)
            weight[:n_latent] = kl_weight
            weight /= len(q.mean)
            d_variance = 0.5 * (d_sample * q.noise / q.sd + weight * (1 / q.prior_variance - 1 / q.variance))
            self._encoders.backward(d_sample + weight * distance, d_variance)
            self._add_prior(prior_weight)
        terms = (log_likelihood - rows.log_factorials, kl[:, :n_latent].sum(1), kl_library)
        return Elbo(*map(torch.from_numpy, terms))

    @np.errstate(all="ignore")
    def log_weights(
        self, rows: SparseRows, annotations: Mapping[str, torch.Tensor], generator: torch.Generator | None = None
    ) -> Array:
        """Log importance weight of one draw of each cell, as `LDVAE.log_weights` gives it, in evaluation mode."""
        q = self._draw(rows, annotations, generator, training=False)
        z, log_library = self._latent(q.sample), self._log_library(q.sample, rows, annotations)
        log_likelihood, _ = self._counts(rows, z, log_library, annotations, training=False)
        squares = (q.sample - q.prior_mean) ** 2 / q.prior_variance
        ratios = 0.5 * (q.noise**2 - squares + np.log(q.variance / q.prior_variance)).sum(1)
        return log_likelihood - rows.log_factorials + ratios

    def posterior(self, rows: SparseRows) -> tuple[Array, Array]:
        """Mean and variance of the normal variables, n_cells x n_latent, then log library where it is latent."""
        return self._encoders.forward(rows, None, training=False)

    def _draw(
        self,
        rows: SparseRows,
        annotations: Mapping[str, torch.Tensor],
        generator: torch.Generator | None,
        *,
        training: bool,
    ) -> _Draw:
        mean, variance = self._encoders.forward(rows, generator, training=training)
        noise, sd = self._noise(mean, generator), np.sqrt(variance)
        return _Draw(mean, variance, noise, sd, mean + sd * noise, *self._prior(mean, annotations))

    def _latent(self, sample: Array) -> Array:
        z = sample[:, : self._model.n_latent]
        if self._model.latent_distribution == "ln":
            z = np.exp(z - z.max(1, keepdims=True))
            z /= z.sum(1, keepdims=True)
        return z

    def _noise(self, mean: Array, generator: torch.Generator | None) -> Array:
        n, n_latent = len(mean), self._model.n_latent
        widths = [n_latent] if self._model.l_encoder is None else [1, n_latent]
        draws = [torch.empty(n, width, dtype=self.values.dtype).normal_(generator=generator) for width in widths]
        return np.hstack([draw.numpy() for draw in reversed(draws)])

    def _prior(self, mean: Array, annotations: Mapping[str, torch.Tensor]) -> tuple[Array, Array]:
        prior_mean, prior_variance = np.zeros_like(mean), np.ones_like(mean)
        if self._library_prior is not None:
            batch = 0 if len(self._library_prior[0]) == 1 else annotations["batch_index"].numpy()
            prior_mean[:, -1], prior_variance[:, -1] = (moment[batch] for moment in self._library_prior)
        return prior_mean, prior_variance

    def _log_library(self, sample: Array, rows: SparseRows, annotations: Mapping[str, torch.Tensor]) -> Array:
        if self._model.l_encoder is not None:
            return sample[:, -1]
        size_factor = annotations.get("size_factor")
        return np.log(rows.totals if size_factor is None else size_factor.numpy())

    def _counts(
        self,
        rows: SparseRows,
        z: Array,
        log_library: Array,
        annotations: Mapping[str, torch.Tensor],
        *,
        training: bool,
    ) -> tuple[Array, _CountGradients]:
        model = self._model
        columns = [annotations.get(name) for name in ("batch_index", "cat_covs", "cont_covs")]
        covariates = model.covariates(*columns)
        ones = np.ones((len(z), 1), z.dtype)
        u = np.hstack([z, ones] if covariates is None else [z, covariates.numpy(), ones])
        decoder = self._decoder.fold(u[:, :-1], training=training)
        inflation = None if self._inflation is None else self._inflation.fold(u[:, :-1], training=training)
        theta_decoder = None
        if self._theta_decoder is not None:
            theta_decoder = self._theta_decoder.fold(u[:, :-1], training=training)
        log_theta = theta = rising = slopes = None
        if self._log_theta is not None:
            log_theta = self._log_theta.value
            theta = np.exp(log_theta)
            rising, slopes = empty_tables(theta)
            tabulate_rising(theta, log_theta, rising, slopes)
        group = model.theta_group(annotations.get("batch_index"), annotations.get("labels"))
        theta_row = np.zeros(len(u), np.int64) if group is None else group.numpy()

        parts = n_parts(u.shape[0] * decoder.shape[1])
        maps = (decoder, theta_decoder, inflation, log_theta)
        copies = [None if one is None else np.empty((parts, *one.shape), one.dtype) for one in maps]
        log_likelihood, d_log_library = np.empty((2, len(u)), u.dtype)
        d_u = np.empty_like(u)
        count_loss(
            parts,
            rows.indptr,
            rows.genes,
            rows.counts,
            np.ascontiguousarray(log_library),
            u,
            np.ascontiguousarray(u.T),
            decoder,
            theta_decoder,
            inflation,
            theta_row,
            log_theta,
            theta,
            rising,
            slopes,
            u.dtype.type(-1 / len(u)),
            log_likelihood,
            d_u,
            d_log_library,
            *copies,
        )
        sums: list[Any] = [None if copy is None else copy.sum(0) for copy in copies]
        gradients = _CountGradients(d_u, d_log_library, *sums)
        if training:
            self._decoder_backward(gradients)
        return log_likelihood, gradients

    def _decoder_backward(self, d: _CountGradients) -> None:
        for decoder, d_matrix in (
            (self._decoder, d.decoder),
            (self._theta_decoder, d.theta_decoder),
            (self._inflation, d.inflation),
        ):
            if decoder is not None and d_matrix is not None:
                through_moments = decoder.backward(d_matrix)
                if through_moments is not None:
                    d.u[:, :-1] += through_moments
        if self._log_theta is not None:
            self._log_theta.gradient[:] = d.log_theta

    def _add_prior(self, weight: float) -> None:
        linear = self._theta_decoder
        for block in [self._log_theta] if linear is None else [linear.weight, linear.bias]:
            if block is not None:
                block.gradient[:] += weight * block.value
