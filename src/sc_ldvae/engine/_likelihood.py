"""The linear maps and the likelihood of a minibatch, with their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sc_ldvae._bounds import LARGEST_LOG_THETA
from sc_ldvae.engine._decoder import FusedDecoder
from sc_ldvae.engine._flat import Rooms
from sc_ldvae.kernels import TERMS, count_loss, matmul, multiply, n_slices
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import Grouped, LinearDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.engine._adaptive_prior import AdaptivePrior
    from sc_ldvae.engine._flat import Flat, Stretch
    from sc_ldvae.kernels import SparseRows
    from sc_ldvae.nn import LDVAE


# What parts depend on, in the order in which the groups of the parameters have them.
_GROUPS = ("factors", "gene", "dispersion")


class Inputs(NamedTuple):
    """What the likelihood of each cell depends on."""

    u: Floats
    """Inputs of the linear maps: latent, covariates and 1, n_cells x inputs."""
    log_library: Floats
    """n_cells."""
    group: NDArray[np.int64]
    """Group of each cell in parts that have one value per group, n_cells."""


class FusedLikelihood:
    """Of one modality: its log proportions and the parts of its likelihood."""

    def __init__(self, model: LDVAE, flat: Flat) -> None:
        self._model = model
        name = model.gene_likelihood
        self._terms, parts = TERMS[name], dict(model.named_parts())
        self._thresholded = LIKELIHOODS[name].thresholded
        depends_on = {part.name: part.depends_on for part in LIKELIHOODS[name].parts}
        decoder = FusedDecoder(model.decoder, flat)
        placed: dict[str, FusedDecoder | Stretch] = {name: _placed(part, flat) for name, part in parts.items()}
        fused = list(placed.values())
        self._maps = [decoder, *(part for part in fused if isinstance(part, FusedDecoder))]
        self._grouped = [part for part in fused if not isinstance(part, FusedDecoder)]
        self._rooms = Rooms(decoder.weight.value.dtype)
        self._n_inputs = len(decoder.weight.value) + 1
        self._is_grouped = any(len(part.value) > 1 for part in self._grouped)
        self._with_prior = [placed[name] for name in parts if depends_on[name] != "factors"]

    def inputs(self, z: Floats, log_library: Floats, annotations: Mapping[str, NDArray[Any]]) -> Inputs:
        """With the covariates of the cells beside the latent."""
        n, n_latent = z.shape
        u = np.empty((n, self._n_inputs), z.dtype)
        u[:, :n_latent], u[:, -1] = z, 1
        groups = np.zeros(n, np.int64)
        if n_latent + 1 < self._n_inputs or self._is_grouped:
            tensors = {name: torch.from_numpy(values) for name, values in annotations.items()}
            covariates = self._model.covariates(*map(tensors.get, ("batch_index", "cat_covs", "cont_covs")))
            if covariates is not None:
                u[:, n_latent:-1] = covariates.numpy()
            group = self._model.theta_group(tensors.get("batch_index"), tensors.get("labels"))
            if group is not None:
                groups = group.numpy()
        return Inputs(u, np.ascontiguousarray(log_library), groups)

    def forward(self, rows: SparseRows, inputs: Inputs, weight: float, *, training: bool) -> Floats:
        """Log-likelihood of each cell; `backward` knows its gradient.

        Of minus `weight` times the sum of them, that is.
        """
        u, dtype = inputs.u, inputs.u.dtype
        maps = self._rooms("maps", len(self._maps), u.shape[1], len(rows.gene_indptr) - 1)
        for i, one in enumerate(self._maps):
            one.fold(u, maps[i], training=training)
        grouped = [part.value for part in self._grouped]
        slices = n_slices(u.shape[0] * maps.shape[2])
        log_likelihood, self._d_log_library = np.empty((2, len(u)), dtype)
        d_u_transposed = np.zeros(u.shape[::-1], dtype)
        d_maps = self._rooms("d_maps", slices, *maps.shape)
        d_grouped = self._rooms("d_grouped", slices, len(grouped), *(grouped[0].shape if grouped else (1, 1)))
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
            dtype.type(-weight),
            log_likelihood,
            d_u_transposed,
            self._d_log_library,
            d_maps,
            d_grouped,
        )
        if training:
            self._d_u = np.ascontiguousarray(d_u_transposed.T)
            self._d_maps, self._d_grouped = map(_summed, (d_maps, d_grouped))
            self._matrix = maps[0]
        return log_likelihood if self._thresholded else log_likelihood - rows.log_factorials

    def backward(self) -> tuple[Floats, Floats]:
        """Fill the gradients of the parameters; return those by the inputs u and by the log library."""
        for one, d_map in zip(self._maps, self._d_maps, strict=True):
            one.backward(d_map, self._d_u)
        for part, by_group in zip(self._grouped, self._d_grouped, strict=True):
            # Where one value stands for all groups, they share its gradient.
            gradient = by_group if len(part.value) > 1 else by_group.sum(0)
            part.gradient[:] = np.where(np.abs(part.value) <= LARGEST_LOG_THETA, gradient, 0)
        return self._d_u, self._d_log_library

    def add_adaptive_prior(
        self, prior: AdaptivePrior, rows: SparseRows, u: Floats, divergence: Floats, weight: float, n_minibatch: int
    ) -> None:
        """Let an adaptive prior learn, and add its part to the gradients before they go `backward`.

        `divergence` is the mean of each factor that has the prior; `weight` that of `forward`; `n_minibatch` counts the
        cells that lack the modality, too.
        """
        n_cells = u.dtype.type(len(u))
        # Those of the factors and of the covariates, or of the latter alone, stand before the bias.
        own = slice(u.shape[1] - 1 - prior.n_rows, u.shape[1] - 1)
        by_cell, by_gene = self._counts(rows)
        counted = np.empty((len(rows.gene_indptr) - 1, prior.n_rows + 1), u.dtype)
        slices = n_slices(len(rows.genes) * prior.n_rows // 4)
        multiply(slices, rows.gene_indptr, rows.cells, by_gene, u[:, own.start :] ** 2, counted)
        factors = slice(prior.n_factors)
        prior.observe(self._matrix[own], np.ascontiguousarray(counted.T) / n_cells, divergence, self._model.typical())
        of_sum = -(self._d_maps[0, factors] * self._matrix[factors]).sum(1)
        prior.observe_slope(of_sum / u.dtype.type(weight * len(u)))
        self._d_maps[0, own] += prior.pull
        penalty = np.empty((len(u), prior.n_factors), u.dtype)
        multiply(slices, rows.indptr, rows.genes, by_cell, prior.penalty, penalty)
        self._d_u[:, factors] += penalty * u[:, factors] / u.dtype.type(n_minibatch)

    def _counts(self, rows: SparseRows) -> tuple[Floats, Floats]:
        """Of the nonzeros by cell and by gene, as the adaptive prior sees them."""
        if self._thresholded:
            ones = np.ones_like(rows.counts)
            return ones, ones
        # Counts are whole numbers, for which NumPy's fast exp is as good as its slow expm1.
        return rows.counts, np.exp(rows.seen_by_gene) - 1 if self._model.log_variational else rows.seen_by_gene

    def add_prior(self, weight: float) -> None:
        """Add that of minus `weight` times the model's `log_prior`."""
        for part in self._with_prior:
            for stretch in part.stretches() if isinstance(part, FusedDecoder) else [part]:
                stretch.gradient[:] += weight * stretch.value


def _placed(part: Grouped | LinearDecoder, flat: Flat) -> FusedDecoder | Stretch:
    return FusedDecoder(part, flat) if isinstance(part, LinearDecoder) else flat.place(part.table)


def _summed(slices: Floats) -> Floats:
    """Over the first axis; NumPy would read and write the sum for each of them."""
    total = matmul(np.ones((1, len(slices)), slices.dtype), slices.reshape(len(slices), -1))
    return total.reshape(slices.shape[1:])
