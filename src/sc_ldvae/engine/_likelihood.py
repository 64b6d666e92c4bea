"""The linear maps and the likelihood of a minibatch, with their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.engine._decoder import FusedDecoder
from sc_ldvae.kernels import TERMS, count_loss, multiply, n_slices
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import Grouped, LinearDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._flat import Flat, Stretch
    from sc_ldvae.engine._loadings_prior import LoadingsPrior
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE


class Inputs(NamedTuple):
    """What the likelihood of each cell depends on."""

    u: Floats
    """Inputs of the linear maps: latent, covariates and 1, n_cells x inputs."""
    log_library: Floats
    """n_cells."""
    group: NDArray[np.int64]
    """Group of each cell in parts that have one value per group, n_cells."""


class FusedLikelihood:
    """One block of a model: its log proportions and the parts of its likelihood."""

    def __init__(self, model: LDVAE, flat: Flat, loadings_prior: LoadingsPrior | None = None) -> None:
        self._model, self._loadings_prior = model, loadings_prior
        name = model.blocks[0].gene_likelihood
        self._terms, parts = TERMS[name], dict(model.parts_of(0))
        with_prior = [part.name for part in LIKELIHOODS[name].parts if part.by_dispersion]
        decoder = FusedDecoder(model.decoder, flat)
        # Placed in the order of the parameter groups, used in that of the likelihood's parts.
        placed: dict[str, FusedDecoder | Stretch] = {
            name: _placed(parts[name], flat) for name in sorted(parts, key=with_prior.__contains__)
        }
        fused = [placed[name] for name in parts]
        self._maps = [decoder, *(part for part in fused if isinstance(part, FusedDecoder))]
        self._grouped = [part for part in fused if not isinstance(part, FusedDecoder)]
        self._with_prior = [placed[name] for name in with_prior]

    def inputs(self, z: Floats, log_library: Floats, annotations: Mapping[str, NDArray[Any]]) -> Inputs:
        """With the covariates of the cells beside the latent."""
        tensors = {name: torch.from_numpy(values) for name, values in annotations.items()}
        covariates = self._model.covariates(*map(tensors.get, ("batch_index", "cat_covs", "cont_covs")))
        ones = np.ones((len(z), 1), z.dtype)
        u = np.hstack([z, ones] if covariates is None else [z, covariates.numpy(), ones])
        group = self._model.theta_group(tensors.get("batch_index"), tensors.get("labels"))
        groups = np.zeros(len(u), np.int64) if group is None else group.numpy()
        return Inputs(u, np.ascontiguousarray(log_library), groups)

    def forward(self, rows: SparseRows, inputs: Inputs, *, training: bool) -> Floats:
        """Log-likelihood of each cell without the factorials of its counts; `backward` knows its gradient.

        Of minus the mean log-likelihood, that is.
        """
        u, dtype = inputs.u, inputs.u.dtype
        maps = np.empty((len(self._maps), u.shape[1], len(rows.gene_indptr) - 1), dtype)
        for i, one in enumerate(self._maps):
            one.fold(u[:, :-1], maps[i], training=training)
        grouped = [part.value for part in self._grouped]
        slices = n_slices(u.shape[0] * maps.shape[2])
        log_likelihood, self._d_log_library = np.empty((2, len(u)), dtype)
        self._d_u = np.empty_like(u)
        d_maps = np.empty((slices, *maps.shape), dtype)
        d_grouped = np.empty((slices, len(grouped), *(grouped[0].shape if grouped else (1, 1))), dtype)
        count_loss(
            slices,
            rows.indptr,
            rows.genes,
            rows.counts,
            inputs.log_library,
            u,
            np.ascontiguousarray(u.T),
            maps,
            inputs.group,
            self._terms(grouped),
            dtype.type(-1 / len(u)),
            log_likelihood,
            self._d_u,
            self._d_log_library,
            d_maps,
            d_grouped,
        )
        if training:
            self._d_maps, self._d_grouped = d_maps.sum(0), d_grouped.sum(0)
            self._loadings = maps[0, : self._model.n_latent]
        return log_likelihood

    def backward(self) -> tuple[Floats, Floats]:
        """Fill the gradients of the parameters; return those by the inputs u and by the log library."""
        for one, d_map in zip(self._maps, self._d_maps, strict=True):
            through_moments = one.backward(d_map)
            if through_moments is not None:
                self._d_u[:, :-1] += through_moments
        for part, gradient in zip(self._grouped, self._d_grouped, strict=True):
            part.gradient[:] = np.where(np.abs(part.value) <= LARGEST_LOG_THETA, gradient, 0)
        return self._d_u, self._d_log_library

    def add_loadings_prior(self, rows: SparseRows, u: Floats, divergence: Floats) -> None:
        """Let the prior of the loadings learn, and add its part to the gradients before they go `backward`.

        `divergence` is that of each factor, mean over the cells, n_latent.
        """
        prior, n_latent, n_cells = self._loadings_prior, self._model.n_latent, u.dtype.type(len(u))
        if prior is None:
            return
        z = np.ascontiguousarray(u[:, :n_latent])
        squares = np.column_stack([z * z, u[:, -1]])
        counts = np.expm1(rows.seen_by_gene) if self._model.log_variational else rows.seen_by_gene
        counted = np.empty((len(rows.gene_indptr) - 1, n_latent + 1), u.dtype)
        slices = n_slices(len(rows.genes) * n_latent // 4)
        multiply(slices, rows.gene_indptr, rows.cells, counts, squares, counted)
        prior.observe(self._loadings, np.ascontiguousarray(counted.T) / n_cells, divergence, self._model.typical())
        prior.observe_slope(-(self._d_maps[0, :n_latent] * self._loadings).sum(1))
        self._d_maps[0, :n_latent] += prior.pull
        penalty = np.empty_like(z)
        multiply(slices, rows.indptr, rows.genes, rows.counts, prior.penalty_per_count, penalty)
        self._d_u[:, :n_latent] += penalty * z / n_cells

    def add_prior(self, weight: float) -> None:
        """Add that of minus `weight` times the model's `log_prior`."""
        for part in self._with_prior:
            for stretch in part.stretches() if isinstance(part, FusedDecoder) else [part]:
                stretch.gradient[:] += weight * stretch.value


def _placed(part: Grouped | LinearDecoder, flat: Flat) -> FusedDecoder | Stretch:
    return FusedDecoder(part, flat) if isinstance(part, LinearDecoder) else flat.place(part.table)
