"""The ELBO of a minibatch and its gradient, fused: what `LDVAE.forward` and its backward say, without autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sc_ldvae.engine._encoder import FusedEncoders
from sc_ldvae.engine._flat import Flat
from sc_ldvae.engine._likelihood import FusedLikelihood
from sc_ldvae.nn import Elbo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior
    from sc_ldvae.engine._likelihood import Inputs
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE

    # What the model knows of each cell beside its counts, by the names of its arguments.
    Annotations = Mapping[str, NDArray[Any]]


class _Sampled(NamedTuple):
    """Posterior, prior and one draw of the normal variables, each n_cells x variables."""

    mean: Floats
    variance: Floats
    noise: Floats
    sd: Floats
    sample: Floats
    prior_mean: Floats
    prior_variance: Floats


class FusedElbo:
    """A model's ELBO and gradient on the CPU, from sparse counts.

    Every mode of :class:`~sc_ldvae.nn.LDVAE`, the same draws from the same generator, the same values and gradients to
    rounding. The parameters of the module are moved into one buffer, `values`; `gradient` has the same layout.
    """

    def __init__(self, model: LDVAE, adaptive_prior: AdaptivePrior | None = None) -> None:
        self._model = model
        flat = Flat(model)
        self.values, self.gradient = flat.values, flat.gradient
        # In the order of the model's parameter groups, so that each group is one stretch of the buffers.
        self._encoders = FusedEncoders(model, flat)
        self._likelihood = FusedLikelihood(model, flat, adaptive_prior)
        self._library_prior = None
        if model.l_encoder is not None:
            self._library_prior = model.library_log_means.numpy(), model.library_log_vars.numpy()

    # What overflows shows in the ELBO, which the training loop checks.
    @np.errstate(all="ignore")
    def __call__(
        self,
        rows: SparseRows,
        annotations: Annotations,
        *,
        kl_weight: float = 1.0,
        prior_weight: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Elbo:
        """Terms of the ELBO, each n_cells.

        In training mode `gradient` gets that of the loss: minus the mean ELBO at `kl_weight`, minus `prior_weight`
        times the model's `log_prior`, and what the prior of the loadings adds.
        """
        model, training, n_latent = self._model, self._model.training, self._model.n_latent
        q = self._sample(rows, annotations, generator, training=training)
        distance = (q.mean - q.prior_mean) / q.prior_variance
        ratio = q.variance / q.prior_variance
        kl = 0.5 * (ratio + distance * (q.mean - q.prior_mean) - 1 - np.log(ratio))
        inputs = self._inputs(q.sample, rows, annotations)
        log_likelihood = self._likelihood.forward(rows, inputs, training=training)
        kl_library = kl[:, n_latent] if model.l_encoder is not None else np.zeros_like(log_likelihood)
        if training:
            self._likelihood.add_adaptive_prior(rows, inputs.u, kl)
            self._backward(q, distance, inputs, kl_weight)
            self._likelihood.add_prior(prior_weight)
        terms = (log_likelihood, kl[:, :n_latent].sum(1), kl_library)
        return Elbo(*map(torch.from_numpy, terms))

    @np.errstate(all="ignore")
    def log_weights(
        self, rows: SparseRows, annotations: Annotations, generator: torch.Generator | None = None
    ) -> Floats:
        """Log importance weight of one draw of each cell, as `LDVAE.log_weights` gives it, in evaluation mode."""
        q = self._sample(rows, annotations, generator, training=False)
        log_likelihood = self._likelihood.forward(rows, self._inputs(q.sample, rows, annotations), training=False)
        squares = (q.sample - q.prior_mean) ** 2 / q.prior_variance
        ratios = 0.5 * (q.noise**2 - squares + np.log(q.variance / q.prior_variance)).sum(1)
        return log_likelihood + ratios

    def posterior(self, rows: SparseRows) -> tuple[Floats, Floats]:
        """Mean and variance of the normal variables, n_cells x n_latent, then log library where it is latent."""
        return self._encoders.forward(rows, None, training=False)

    # The loss is ``(w KL - log p) / n`` with n cells, the weight w of the latent's divergence (1 for the library's)
    # and the sample ``a = mean + sd noise``; d is what the likelihood adds to the gradient by a. With the prior's
    # moments (m, v), ``KL = ((variance + (mean - m)^2) / v - 1 - log(variance / v)) / 2``:
    #   by mean: d + w (mean - m) / (n v),   by variance: d noise / (2 sd) + w (1 / v - 1 / variance) / (2 n).
    # For 'ln' the likelihood sees z = softmax(a): the gradient by a is ``z (d - sum_k d_k z_k)``.
    def _backward(self, q: _Sampled, distance: Floats, inputs: Inputs, kl_weight: float) -> None:
        model, n_latent = self._model, self._model.n_latent
        d_u, d_log_library = self._likelihood.backward()
        d_sample = d_u[:, :n_latent]
        if model.composition:
            z = inputs.u[:, :n_latent]
            d_sample = z * (d_sample - (d_sample * z).sum(1, keepdims=True))
        if model.l_encoder is not None:
            d_sample = np.column_stack([d_sample, d_log_library])
        weight = np.ones(q.mean.shape[1], q.mean.dtype)
        weight[:n_latent] = kl_weight
        weight /= len(q.mean)
        d_variance = 0.5 * (d_sample * q.noise / q.sd + weight * (1 / q.prior_variance - 1 / q.variance))
        self._encoders.backward(d_sample + weight * distance, d_variance)

    def _sample(
        self, rows: SparseRows, annotations: Annotations, generator: torch.Generator | None, *, training: bool
    ) -> _Sampled:
        mean, variance = self._encoders.forward(rows, generator, training=training)
        noise, sd = self._noise(mean, generator), np.sqrt(variance)
        return _Sampled(mean, variance, noise, sd, mean + sd * noise, *self._prior(mean, annotations))

    def _noise(self, mean: Floats, generator: torch.Generator | None) -> Floats:
        n, n_latent = len(mean), self._model.n_latent
        widths = [n_latent] if self._model.l_encoder is None else [1, n_latent]
        draws = [
            torch.empty(n, width, dtype=self.values.dtype, device="cpu").normal_(generator=generator)
            for width in widths
        ]
        return np.hstack([draw.numpy() for draw in reversed(draws)])

    def _prior(self, mean: Floats, annotations: Annotations) -> tuple[Floats, Floats]:
        prior_mean, prior_variance = np.zeros_like(mean), np.ones_like(mean)
        if self._library_prior is not None:
            batch = 0 if len(self._library_prior[0]) == 1 else annotations["batch_index"]
            prior_mean[:, -1], prior_variance[:, -1] = (moment[batch] for moment in self._library_prior)
        return prior_mean, prior_variance

    def _inputs(self, sample: Floats, rows: SparseRows, annotations: Annotations) -> Inputs:
        """What the decoder takes: the latent, and the log library."""
        z = sample[:, : self._model.n_latent]
        if self._model.composition:
            z = np.exp(z - z.max(1, keepdims=True))
            z /= z.sum(1, keepdims=True)
        if self._model.l_encoder is not None:
            log_library = sample[:, -1]
        else:
            log_library = np.log(annotations.get("size_factor", rows.totals))
        return self._likelihood.inputs(z, log_library, annotations)
