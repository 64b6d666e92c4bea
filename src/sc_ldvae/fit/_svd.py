"""Truncated SVD of the centred log-normalised counts, the same to the bit for any number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackError, LinearOperator, svds

from sc_ldvae.counts import evenly
from sc_ldvae.kernels import matmul

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Beyond so many products, and so long vectors, a BLAS cuts its sums by the number of its threads.
_MOST_PRODUCTS, _LONGEST = 2**18, 2**13
# Cells, and genes, in which directions are looked for first; directions beside those that are asked for; rounds from
# random directions, and rounds that make what some of the data say what all say.
_SOME, _BESIDE, _ROUNDS, _ROUNDS_OF_ALL = 4096, 10, 12, 2


class Svd(NamedTuple):
    """Truncated SVD of the centred log-normalised counts."""

    scores: NDArray[np.float64]
    """n_obs x k, unit variance."""
    effects: NDArray[np.float64]
    """n_vars x k: log fold change per unit of the score."""
    directions: NDArray[np.float64]
    """n_vars x k, unit length."""


class _Factored(NamedTuple):
    """Left vectors as columns, singular values, right vectors as columns; largest first."""

    left: NDArray[np.float64]
    values: NDArray[np.float64]
    right: NDArray[np.float64]


def truncated_svd(counts: sparse.csr_matrix, library: NDArray[np.float64], k: int, *, centred: bool = True) -> Svd:
    """SVD of log1p of counts per median library, centred over cells without building the dense matrix.

    Effects are `centred` over the genes, for a model that does not see what they share.
    """
    n_obs, n_vars = counts.shape
    log = sparse.csr_matrix(sparse.diags(np.median(library) / library) @ counts).log1p()
    if k < 1:
        return Svd(np.zeros((n_obs, 0)), np.zeros((n_vars, 0)), np.zeros((n_vars, 0)))
    left, values, right = _factored(log, k)
    effects = right * values / np.sqrt(n_obs)
    return Svd(left * np.sqrt(n_obs), effects - effects.mean(0) if centred else effects, right)


def _factored(log: sparse.csr_matrix, k: int) -> _Factored:
    if max(log.shape) <= min(_LONGEST, _MOST_PRODUCTS // k**2):
        try:
            return _by_arpack(log, k)
        except ArpackError:
            # Cells that are all alike, or of too few kinds.
            pass
    return _by_subspaces(log, k)


def _by_arpack(log: sparse.csr_matrix, k: int) -> _Factored:
    mean = np.asarray(log.mean(0)).ravel()

    def times(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return log @ v - mean @ v

    def transposed_times(u: NDArray[np.float64]) -> NDArray[np.float64]:
        return log.T @ u - np.multiply.outer(mean, u.sum(0))

    centred = LinearOperator(
        log.shape,
        matvec=times,
        matmat=times,
        rmatvec=transposed_times,
        rmatmat=transposed_times,
        dtype=np.float64,
    )
    # ARPACK's own start vector would come from a global generator.
    start = np.random.default_rng(0).normal(size=min(log.shape))
    left, values, right = svds(centred, k=k, v0=start)
    order = np.argsort(-values)
    return _Factored(left[:, order], values[order], right[order].T)


def _by_subspaces(log: sparse.csr_matrix, k: int) -> _Factored:
    """By subspace iteration (Halko et al. 2011), first in some of the data, in sums that no BLAS cuts."""
    cells, genes = (evenly(np.arange(n), _SOME) for n in log.shape)
    width = min(k + _BESIDE, *log.shape)
    right = np.zeros((log.shape[1], width))
    right[genes] = _turned(log[cells][:, genes], np.random.default_rng(0).normal(size=(len(genes), width)), _ROUNDS)
    right = _turned(log, right, _ROUNDS_OF_ALL)
    projections = _projected(log, right)
    left, turn = _orthonormal(projections)
    values = np.sqrt((matmul(projections, turn) ** 2).sum(0))
    return _Factored(left[:, :k], values[:k], matmul(right, turn)[:, :k])


def _turned(log: sparse.csr_matrix, right: NDArray[np.float64], n_rounds: int) -> NDArray[np.float64]:
    """Directions after some rounds more, orthonormal."""
    mean = np.asarray(log.mean(0)).ravel()
    for _ in range(n_rounds):
        left, _ = _orthonormal(_projected(log, right))
        right, _ = _orthonormal(log.T @ left - mean[:, None] * left.sum(0))
    return right


def _projected(log: sparse.csr_matrix, right: NDArray[np.float64]) -> NDArray[np.float64]:
    projections = log @ right
    return projections - projections.mean(0)


def _orthonormal(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal axes of the columns, largest first, zero where they have no length; and the rotation to them."""
    # Unlike the others, this driver of LAPACK gives the same for any number of threads, up to width 150.
    squares, turn = eigh(matmul(columns.T, columns), driver="evr")
    squares, turn = squares[::-1], np.ascontiguousarray(turn[:, ::-1])
    known = squares > np.finfo(float).eps * max(squares[0], np.finfo(float).tiny)
    scale = np.where(known, 1 / np.sqrt(np.where(known, squares, 1)), 0)
    return matmul(columns, turn) * scale, turn
