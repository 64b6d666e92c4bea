"""Rotations of the factors: towards few genes with large loadings, or to axes on which distances mean something."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from sc_ldvae._products import inner, product

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sc_ldvae._typing import Floats

Method: TypeAlias = Literal["varimax", "promax", "principal", "modality"]

_POWER = 4
# Angle below which the search ends, and share of a plane's squared variance below which all its angles are alike.
_SMALLEST_ANGLE = 1e-8
_FLAT = 1e-14
# Size of loadings, as a share of the largest, below which rounding is all that there is.
_SMALLEST_SIZE = 1e-7
_MOST_SWEEPS = 1000


def varimax(loadings: Floats, information: Floats) -> Floats:
    """Orthogonal rotation that maximises the variance of the squared, weighted loadings [Kaiser58]_.

    Each gene is weighted by the square root of its information. The result depends on the space of the factors only,
    not on the rotation that they are given in.

    Parameters
    ----------
    loadings
        n_genes x n_latent.
    information
        How well each gene is measured, n_genes (:func:`gene_information`).

    Returns
    -------
    The matrix T, n_latent x n_latent, in double precision: the new latent is ``Z @ T``, the new loadings are
    ``W @ inv(T).T``. Factors are in the order of their weighted sum of squared loadings, largest first, with their
    heavier tail of loadings positive; those without loadings follow as they are.

    References
    ----------
    .. [Kaiser58] Kaiser (1958). The varimax criterion for analytic rotation in factor analysis. Psychometrika 23:187.

    Examples
    --------
    >>> import numpy as np
    >>> simple = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.5]])
    >>> turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    >>> (simple @ turn @ varimax(simple @ turn, np.ones(4))).round(6) + 0.0
    array([[2. , 0. ],
           [1. , 0. ],
           [0. , 1. ],
           [0. , 0.5]])
    """
    return _of_used(_varimax_matrix, loadings, information)


def promax(loadings: Floats, information: Floats) -> Floats:
    """Oblique rotation from varimax towards the fourth powers of its loadings [Hendrickson64]_.

    The new factors may be correlated. Each keeps the prior variance 1: the diagonal of ``T.T @ T`` is 1.

    Parameters
    ----------
    loadings
        n_genes x n_latent.
    information
        How well each gene is measured, n_genes (:func:`gene_information`).

    Returns
    -------
    The matrix T, as :func:`varimax` gives it.

    References
    ----------
    .. [Hendrickson64] Hendrickson, White (1964). Promax: a quick method for rotation to oblique simple structure.
       British Journal of Statistical Psychology 17:65.

    Examples
    --------
    >>> import numpy as np
    >>> loadings = np.random.default_rng(0).normal(size=(20, 3))
    >>> matrix = promax(loadings, np.ones(20))
    >>> np.diag(matrix.T @ matrix).round(6)
    array([1., 1., 1.])
    """
    return _of_used(_promax_matrix, loadings, information)


def principal(loadings: Floats, information: Floats) -> Floats:
    """Principal axes of the log proportions: loadings of size 1, orthogonal; the latent has the scale.

    The distance of two cells in the new latent is the root mean square over the genes of the differences of their log
    proportions, each centred over the genes. So a factor weighs as much as it changes the genes, as a principal
    component does, where in the model's own latent all factors have about the same scale.

    Parameters
    ----------
    loadings
        n_genes x n_latent, centred over the genes where the model does not see what they share.
    information
        As :func:`varimax` takes it; all genes weigh the same here.

    Returns
    -------
    The matrix T, as :func:`varimax` gives it; factors are in the order of the scale of their latent, largest first.

    Examples
    --------
    >>> import numpy as np
    >>> loadings = np.random.default_rng(0).normal(size=(20, 2))
    >>> new = loadings @ np.linalg.inv(principal(loadings, np.ones(20))).T
    >>> (new.T @ new / 20).round(6) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """
    return _of_used(_principal_matrix, loadings, information)


ROTATIONS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "varimax": varimax,
    "promax": promax,
    "principal": principal,
}


def _of_used(method: Callable[[Floats, Floats], Floats], loadings: Floats, information: Floats) -> Floats:
    """The matrix that a method gives for the factors that have loadings; the others follow as they are."""
    used = loadings.any(0)
    factors = np.concatenate([np.flatnonzero(used), np.flatnonzero(~used)])
    matrix, n_used = np.eye(len(used)), int(used.sum())
    if n_used:
        matrix[:n_used, :n_used] = method(loadings[:, used].astype(np.float64), information)
    return matrix[np.argsort(factors)]


def _varimax_matrix(loadings: Floats, information: Floats) -> Floats:
    return _canonical(_varimax(_weighted(loadings, information)), loadings, information)


def _promax_matrix(loadings: Floats, information: Floats) -> Floats:
    weighted = _weighted(loadings, information)
    orthogonal = _varimax(weighted)
    rotated = product(weighted, orthogonal)
    # A factor that turns out to have no loadings has no target: it stays as it is.
    used = np.flatnonzero(rotated.any(0))
    matrix = np.eye(len(orthogonal))
    matrix[np.ix_(used, used)] = _towards_powers(rotated[:, used])
    return _canonical(orthogonal @ matrix, loadings, information)


def _principal_matrix(loadings: Floats, _: Floats) -> Floats:
    squares, axes = np.linalg.eigh(inner(loadings, loadings))
    sizes = np.sqrt(np.maximum(squares[::-1], 0) / len(loadings))
    # Along an axis on which the loadings have no length, the latent stays as it is.
    sizes[sizes <= _SMALLEST_SIZE * sizes[0]] = 1
    matrix = axes[:, ::-1] * sizes
    return _signed(matrix, product(loadings, np.linalg.inv(matrix).T))


def _weighted(loadings: Floats, information: Floats) -> Floats:
    return loadings * np.sqrt(information.astype(np.float64))[:, None]


def _varimax(weighted: Floats) -> Floats:
    """Kaiser's method: the best angle in the plane of each pair of factors, until no angle is left."""
    # From the principal axes: they are the same whatever the rotation of the input.
    matrix = np.linalg.eigh(inner(weighted, weighted))[1][:, ::-1]
    columns = np.ascontiguousarray(product(weighted, matrix).T)
    for _ in range(_MOST_SWEEPS):
        largest = 0.0
        for pair in combinations(range(len(columns)), 2):
            angle = _best_angle(*columns[list(pair)])
            if abs(angle) > _SMALLEST_ANGLE:
                turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
                columns[list(pair)] = np.einsum("ij,jg->ig", turn, columns[list(pair)])
                matrix[:, pair] = matrix[:, pair] @ turn.T
            largest = max(largest, abs(angle))
        if largest <= _SMALLEST_ANGLE:
            break
    return matrix


def _best_angle(x: Floats, y: Floats) -> float:
    """Angle by which to turn a plane for the largest variance of squares; 0 where all are alike."""
    difference, product = x * x - y * y, 2 * x * y
    a, b = difference.mean(), product.mean()
    sine = 2 * ((difference * product).mean() - a * b)
    cosine = (difference**2 - product**2).mean() - (a * a - b * b)
    if np.hypot(sine, cosine) <= _FLAT * np.mean(x * x + y * y) ** 2:
        return 0.0
    return float(np.arctan2(sine, cosine) / 4)


def _towards_powers(loadings: Floats) -> Floats:
    """Matrix of the latent that takes loadings nearest to their powers, with columns of length 1."""
    # Powers of small numbers would be lost beside those of large ones.
    size = np.abs(loadings).max(0)
    scaled = loadings / size
    target = scaled * np.abs(scaled) ** (_POWER - 1)
    nearest = np.linalg.lstsq(inner(scaled, scaled), inner(scaled, target), rcond=None)[0]
    matrix = size[:, None] * np.linalg.inv(nearest).T
    return matrix / np.linalg.norm(matrix, axis=0)


def _canonical(matrix: Floats, loadings: Floats, information: Floats) -> Floats:
    """The same factors, largest first, signed."""
    rotated = product(loadings, np.linalg.inv(matrix).T)
    order = np.argsort(-(information[:, None] * rotated**2).sum(0), kind="stable")
    return _signed(matrix[:, order], rotated[:, order])


def _signed(matrix: Floats, rotated: Floats) -> Floats:
    """The same factors, the heavier tail of their `rotated` loadings positive."""
    return matrix * np.where((rotated**3).sum(0) < 0, -1.0, 1.0)
