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
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_ldvae._typing import Mask, Positions

# Beyond so many products, and so long vectors, a BLAS cuts its sums by the number of its threads.
_MOST_PRODUCTS, _LONGEST = 2**18, 2**13
# Cells, and genes, in which directions are looked for first; directions beside those that are asked for; rounds from
# random directions, and rounds that make what some of the data say what all say. More do not change what fits come to.
_SOME, _BESIDE, _ROUNDS, _ROUNDS_OF_ALL = 4096, 10, 4, 2


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


class Centred:
    """A sparse matrix without the means of its columns, which is never made.

    Parameters
    ----------
    log
        n_obs x n_vars.
    """

    def __init__(self, log: sparse.csr_matrix) -> None:
        self.log, self._mean = log, np.asarray(log.mean(0)).ravel()

    def times(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product with vectors of the columns."""
        product = self.log @ right
        return product - product.mean(0)

    def transposed_times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product with vectors of the rows, whose sums are zero or not."""
        return self.log.T @ left - np.multiply.outer(self._mean, left.sum(0))

    def by_means(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same by the means, in sums that a BLAS may cut where they are long."""
        return self.log @ right - self._mean @ right

    def operator(self) -> LinearOperator:
        """As ARPACK takes it."""
        return LinearOperator(
            self.log.shape,
            matvec=self.by_means,
            matmat=self.by_means,
            rmatvec=self.transposed_times,
            rmatmat=self.transposed_times,
            dtype=np.float64,
        )

    def some(self, rows: Positions, columns: Positions) -> Centred:
        """A part of it, centred anew."""
        return Centred(self.log[rows][:, columns])


class CentredBlocks(Centred):
    """Several such matrices beside each other, each without the means of the rows that it has.

    Parameters
    ----------
    logs
        n_obs x columns, in which rows that are not there are empty.
    present
        Which rows are there, n_obs x matrices.
    """

    def __init__(self, logs: Sequence[sparse.csr_matrix], present: Mask) -> None:
        self._logs, self._present = logs, present.astype(np.float64)
        self.log = sparse.hstack(logs, format="csr")
        self._means = np.zeros((len(logs), self.log.shape[1]))
        start = 0
        for i, log in enumerate(logs):
            stop = start + log.shape[1]
            self._means[i, start:stop] = np.asarray(log.sum(0)).ravel() / max(1.0, self._present[:, i].sum())
            start = stop

    def times(self, right: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product with vectors of the columns."""
        return self.log @ right - self._present @ (self._means @ right)

    def transposed_times(self, left: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product with vectors of the rows."""
        return self.log.T @ left - self._means.T @ (self._present.T @ left)

    by_means = times

    def some(self, rows: Positions, columns: Positions) -> Centred:
        """A part of it, centred anew."""
        parts, start = [], 0
        for log in self._logs:
            own = columns[(columns >= start) & (columns < start + log.shape[1])] - start
            parts.append(log[rows][:, own])
            start += log.shape[1]
        return CentredBlocks(parts, self._present[rows] > 0)


def log_normalised(counts: sparse.csr_matrix, library: NDArray[np.float64]) -> sparse.csr_matrix:
    """log1p of counts per median library."""
    return sparse.csr_matrix(sparse.diags(np.median(library) / library) @ counts).log1p()


def truncated_svd(counts: sparse.csr_matrix, library: NDArray[np.float64], k: int, *, centred: bool = True) -> Svd:
    """SVD of log1p of counts per median library, centred over cells without building the dense matrix.

    Effects are `centred` over the genes, for a model that does not see what they share.
    """
    n_obs, n_vars = counts.shape
    log = log_normalised(counts, library)
    if k < 1:
        return Svd(np.zeros((n_obs, 0)), np.zeros((n_vars, 0)), np.zeros((n_vars, 0)))
    left, values, right = _factored(Centred(log), k)
    effects = right * values / np.sqrt(n_obs)
    return Svd(left * np.sqrt(n_obs), effects - effects.mean(0) if centred else effects, right)


def joint_svd(logs: Sequence[sparse.csr_matrix], present: Mask, centred: Sequence[bool], k: int) -> list[Svd]:
    """SVD of several matrices of the same cells beside each other: the same scores with the effects on each.

    Each is centred over the cells that it has, and divided by the root of its total variance, so that none drowns
    because it has few columns.

    Parameters
    ----------
    logs
        Log-normalised counts, n_obs x n_vars each; empty rows for cells that lack a modality.
    present
        Which cells have which, n_obs x matrices.
    centred
        Which of them have effects that are to be centred over the genes, as :func:`truncated_svd` does it.
    k
        Number of factors.
    """
    scaled = [sparse.csr_matrix(log / _spread(log[own])) for log, own in zip(logs, present.T, strict=True)]
    left, _, right = _factored(CentredBlocks(scaled, present), k)
    scores, svds, start = left * np.sqrt(len(left)), [], 0
    for log, own, of_softmax in zip(logs, present.T, centred, strict=True):
        stop, of_view = start + log.shape[1], scores[own]
        squares = np.maximum((of_view**2).sum(0), np.finfo(float).tiny)
        effects = Centred(log[own]).transposed_times(of_view - of_view.mean(0)) / squares
        lengths = np.maximum(np.linalg.norm(right[start:stop], axis=0), np.finfo(float).tiny)
        shared = effects.mean(0) if of_softmax else 0.0
        svds.append(Svd(scores, effects - shared, right[start:stop] / lengths))
        start = stop
    return svds


def _spread(log: sparse.csr_matrix) -> float:
    """Root of the sum of the variances of the columns; 1 if there are none."""
    mean = np.asarray(log.mean(0)).ravel()
    variance = float(log.power(2).mean(0).sum() - (mean**2).sum())
    return variance**0.5 if variance > 0 else 1.0


def _factored(centred: Centred, k: int) -> _Factored:
    shape = centred.log.shape
    if max(shape) <= min(_LONGEST, _MOST_PRODUCTS // k**2):
        try:
            return _by_arpack(centred, k)
        except ArpackError:
            # Cells that are all alike, or of too few kinds.
            pass
    return _by_subspaces(centred, k)


def _by_arpack(centred: Centred, k: int) -> _Factored:
    # ARPACK's own start vector would come from a global generator.
    start = np.random.default_rng(0).normal(size=min(centred.log.shape))
    left, values, right = svds(centred.operator(), k=k, v0=start)
    order = np.argsort(-values)
    return _Factored(left[:, order], values[order], right[order].T)


def _by_subspaces(centred: Centred, k: int) -> _Factored:
    """By subspace iteration (Halko et al. 2011), first in some of the data, in sums that no BLAS cuts."""
    shape = centred.log.shape
    rows, columns = (evenly(np.arange(n), _SOME) for n in shape)
    width = min(k + _BESIDE, *shape)
    right = np.zeros((shape[1], width))
    random = np.random.default_rng(0).normal(size=(len(columns), width))
    right[columns] = _turned(centred.some(rows, columns), random, _ROUNDS)
    right = _turned(centred, right, _ROUNDS_OF_ALL)
    projections = centred.times(right)
    left, turn = _orthonormal(projections)
    values = np.sqrt((matmul(projections, turn) ** 2).sum(0))
    return _Factored(left[:, :k], values[:k], matmul(right, turn)[:, :k])


def _turned(centred: Centred, right: NDArray[np.float64], n_rounds: int) -> NDArray[np.float64]:
    """Directions after some rounds more, orthonormal."""
    for _ in range(n_rounds):
        left, _ = _orthonormal(centred.times(right))
        right, _ = _orthonormal(centred.transposed_times(left))
    return right


def _orthonormal(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal axes of the columns, largest first, zero where they have no length; and the rotation to them."""
    # Unlike the others, this driver of LAPACK gives the same for any number of threads, up to width 150.
    squares, turn = eigh(matmul(columns.T, columns), driver="evr")
    squares, turn = squares[::-1], np.ascontiguousarray(turn[:, ::-1])
    known = squares > np.finfo(float).eps * max(squares[0], np.finfo(float).tiny)
    scale = np.where(known, 1 / np.sqrt(np.where(known, squares, 1)), 0)
    return matmul(columns, turn) * scale, turn
