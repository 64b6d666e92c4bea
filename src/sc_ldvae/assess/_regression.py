"""Genes outside of a fit: each a regression of its counts on the latent, with the likelihood of the model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_ldvae.kernels import matmul, matmul_transposed, n_threads
from sc_ldvae.record import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scipy.sparse import csc_matrix

    from sc_ldvae._typing import Bar, Floats, Positions
    from sc_ldvae.likelihoods import Likelihood
    from sc_ldvae.record import Decoder

# Genes and cells that are computed at once, so that a processor's cache holds them.
_GENES, _CELLS = 64, 2048
# No log expression moves by more in a step: far from its optimum a likelihood is no parabola.
_LONGEST = 3.0
# Most steps; they end where no log expression moves by more, and no part, for the next would move by the square of it.
_STEPS, _SMALL, _SMALL_OF_PARTS = 30, 0.03, 0.1
# Precision that is as good as none.
_NEARLY_FLAT = 1e-4
# Mean square of coefficients of which none is expected.
_LEAST = 1e-12


@dataclass(frozen=True)
class Known:
    """What is known of cells, and of coefficients before counts are seen."""

    factors: Positions
    """Positions of those that have not vanished."""
    inputs: Floats
    """These factors, covariates and 1, n_obs x n_columns, in single precision."""
    offset: Floats
    """What the log expression of every gene has beside: log library less the log normaliser, n_obs."""
    precision: Floats
    """Of the normal prior of each column's coefficients, n_columns."""

    @classmethod
    def of(cls, decoder: Decoder, latent: Floats, covariates: Floats, library: Floats, shared: list[slice]) -> Known:
        """Of cells, by the fit in the frame of the model.

        The coefficients of a column have a prior as wide as those of the fitted genes: the root of their mean square.

        Parameters
        ----------
        decoder
            Of the fit.
        latent, covariates, library
            Of the cells: posterior mean, n_obs x n_latent; n_obs x columns; n_obs.
        shared
            Columns of the covariates that have one width: those of the levels of a category.
        """
        fitted = decoder.log_proportion
        offset = np.log(library.astype(np.float64))
        if decoder.likelihood.has_library:
            for start in range(0, len(latent), _CELLS):
                cells = slice(start, start + _CELLS)
                eta = fitted(latent[cells], covariates[cells])
                largest = eta.max(1, keepdims=True)
                # Sums of single precision are as good as the offset.
                offset[cells] -= largest[:, 0] + np.log(np.exp((eta - largest).astype(np.float32)).sum(1))
        squares = (fitted.covariate_effects**2).mean(0, dtype=np.float64)
        for columns in shared:
            squares[columns] = squares[columns].mean()
        factors = np.flatnonzero(~fitted.vanished)
        of_factors = (fitted.loadings[:, factors] ** 2).mean(0, dtype=np.float64)
        squares = np.concatenate([of_factors, squares, [1 / _NEARLY_FLAT]])
        inputs = np.hstack([latent[:, factors], covariates, np.ones((len(latent), 1))])
        # Of what has no effect on any gene none is expected.
        return cls(factors, inputs.astype(np.float32), offset.astype(np.float32), 1 / np.maximum(squares, _LEAST))


@dataclass(frozen=True)
class Regression:
    """Coefficients of genes, and how certain they are."""

    coefficients: Floats
    """n_genes x n_columns."""
    covariance: Floats
    """Of their posterior, to second order around its mode, n_genes x n_columns x n_columns."""


def regressed(likelihood: Likelihood, counts: csc_matrix, known: Known, bar: Bar) -> Regression:
    """Coefficients of the largest posterior density, by Newton's method, every gene by itself.

    Parameters
    ----------
    likelihood
        Its parts are estimated, too: one value for each gene.
    counts
        n_obs x n_genes; no gene is without any.
    known
        What is known of the cells, and of the coefficients before.
    bar
        Told of every gene.
    """
    n_genes, n_columns = counts.shape[1], known.inputs.shape[1]
    found = Regression(np.zeros((n_genes, n_columns)), np.empty((n_genes, n_columns, n_columns)))
    chunks = list(_chunks(known.inputs))

    def regress(start: int) -> int:
        block = slice(start, min(start + _GENES, n_genes))
        _regress(likelihood, counts[:, block], known, chunks, found.coefficients[block], found.covariance[block])
        return block.stop - block.start

    # Blocks are the same for any number of threads.
    with ThreadPoolExecutor(n_threads()) as threads:
        for n_done in threads.map(regress, range(0, n_genes, _GENES)):
            bar.update(n_done)
    return found


class _Chunk(NamedTuple):
    """Some of the cells."""

    inputs: Floats
    """n_columns x n_cells."""
    products: Floats
    """Of two inputs, in the order of ``np.tril_indices``, n_columns * (n_columns + 1) / 2 x n_cells."""


def _chunks(inputs: Floats) -> Iterator[_Chunk]:
    rows, columns = np.tril_indices(inputs.shape[1])
    for start in range(0, len(inputs), _CELLS):
        x = np.ascontiguousarray(inputs[start : start + _CELLS].T)
        yield _Chunk(x, x[rows] * x[columns])


def _regress(
    likelihood: Likelihood,
    counts: csc_matrix,
    known: Known,
    chunks: list[_Chunk],
    coefficients: Floats,
    covariance: Floats,
) -> None:
    """Fill coefficients and covariance of a few genes."""
    library = np.exp(known.offset.astype(np.float64))
    coefficients[:, -1] = np.log(np.asarray(counts.sum(0)).ravel() / library.sum())
    parts: Mapping[str, Floats] = likelihood.start(counts.tocsr(), library)
    # n_genes x n_cells.
    eta = known.offset + coefficients[:, -1:].astype(np.float32)
    # Genes that are not there yet, and whether their parts are.
    left, still = np.arange(counts.shape[1]), np.full(counts.shape[1], not parts)
    diagonal, columns = np.arange(len(known.precision)), np.ascontiguousarray(known.inputs.T)
    for _ in range(_STEPS):
        by_eta, information, updated = likelihood.derivatives(counts, eta, parts)
        gradient = _summed(by_eta, [chunk.inputs for chunk in chunks]) - known.precision * coefficients[left]
        precision = unpacked(_summed(information, [chunk.products for chunk in chunks]), len(diagonal))
        precision[:, diagonal, diagonal] += known.precision
        covariance[left] = _inverse(precision)
        step = np.einsum("gij,gj->gi", covariance[left], gradient)
        moves = matmul(step.astype(np.float32), columns)
        farthest = np.abs(moves).max(1)
        share = np.minimum(1, _LONGEST / np.maximum(farthest, _SMALL))
        coefficients[left] += share[:, None] * step
        eta += share[:, None] * moves
        moved = {name: np.where(still, 0, updated[name] - parts[name]) for name in parts}
        parts = {name: parts[name] + moved[name] for name in parts}
        if moved:
            still = np.all([np.abs(move) <= _SMALL_OF_PARTS for move in moved.values()], axis=0)
        far = (farthest > _SMALL) | ~still
        if not far.any():
            break
        if not far.all():
            left, counts, eta, still = left[far], counts[:, far], eta[far], still[far]
            parts = {name: values[far] for name, values in parts.items()}


def _summed(values: Floats, columns: list[Floats]) -> Floats:
    """Values of genes x cells times columns of cells, n_genes x n_columns; the latter are given in parts."""
    total: Floats = np.zeros((len(values), len(columns[0])))
    start = 0
    for some in columns:
        cells = slice(start, start + some.shape[1])
        total += matmul_transposed(np.ascontiguousarray(values[:, cells], np.float32), some)
        start = cells.stop
    return total


def _inverse(precision: Floats) -> Floats:
    """Of each gene; where likelihoods are not concave, along directions in which they are."""
    try:
        np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(precision)
        scaled = vectors / np.sqrt(np.maximum(np.abs(values), _NEARLY_FLAT))[:, None]
        return scaled @ scaled.transpose(0, 2, 1)
    return np.linalg.inv(precision)
