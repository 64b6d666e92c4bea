"""A rotation of the factors of several modalities towards factors that are of few of them."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._products import inner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Floats

# Share of a factor's information below which a modality counts for none of it: the log is not drawn further down.
_LEAST_SHARE = 1e-3
_N_ANGLES, _REFINEMENTS = 32, 5
_SMALLEST_GAIN, _MOST_SWEEPS = 1e-9, 200


# A unit vector r of the latent has the information ``s_m = r' G_m r`` in modality m, with ``G_m = W_m' diag(i_m) W_m``:
# to second order twice the log-likelihood that is lost there without it. Its shares ``p_m = s_m / sum s`` are all alike
# where it is shared, and one of them is 1 where it is private. The sum of their logs over factors and modalities is
# smallest where as many factors as possible are private. In the plane of two factors only their own shares change.
def by_modality(loadings: Sequence[Floats], information: Sequence[Floats]) -> Floats:
    """Orthogonal rotation that makes factors those of one modality where they can be.

    Parameters
    ----------
    loadings
        Of each modality, n_genes x n_latent.
    information
        How well each gene is measured, n_genes each (:func:`gene_information`).

    Returns
    -------
    The matrix T, as :func:`varimax` gives it; factors without loadings follow as they are.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 1.0], [0.0, -1.0]])
    >>> turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    >>> matrix = by_modality([first @ turn, second @ turn], [np.ones(2), np.ones(2)])
    >>> [int((np.abs(one @ turn @ matrix).max(0) > 1e-6).sum()) for one in (first, second)]
    [1, 1]
    """
    used = np.any([one.any(0) for one in loadings], axis=0)
    factors = np.concatenate([np.flatnonzero(used), np.flatnonzero(~used)])
    grams = []
    for own, weights in zip(loadings, information, strict=True):
        weighted = own[:, used].astype(np.float64) * np.sqrt(weights)[:, None]
        gram = inner(weighted, weighted)
        # Modalities have as much to say each.
        grams.append(gram / max(np.trace(gram), np.finfo(float).tiny))
    matrix, n_used = np.eye(len(used)), int(used.sum())
    if n_used:
        matrix[:n_used, :n_used] = _canonical(_best(np.array(grams)), grams, [own[:, used] for own in loadings])
    return matrix[np.argsort(factors)]


def _best(grams: Floats) -> Floats:
    """From several starts, the rotation with the smallest sum."""
    starts = [np.eye(grams.shape[1])]
    starts += [np.linalg.eigh(gram - grams.mean(0))[1] for gram in grams]
    found = [_turned(grams, start) for start in starts]
    return min(found, key=lambda matrix: _sum_of_logs(np.einsum("ik,mij,jk->mk", matrix, grams, matrix)))


def _turned(grams: Floats, matrix: Floats) -> Floats:
    """The best angle in the plane of each pair of factors, until no angle gains anything."""
    matrix = matrix.copy()
    for _ in range(_MOST_SWEEPS):
        gained = 0.0
        for pair in combinations(range(matrix.shape[1]), 2):
            plane = np.einsum("ik,mij,jl->mkl", matrix[:, pair], grams, matrix[:, pair])
            angle, gain = _best_angle(plane)
            if gain > _SMALLEST_GAIN:
                cosine, sine = np.cos(angle), np.sin(angle)
                matrix[:, pair] = matrix[:, pair] @ np.array([[cosine, -sine], [sine, cosine]])
                gained += gain
        if gained <= _SMALLEST_GAIN:
            break
    return matrix


def _best_angle(plane: Floats) -> tuple[float, float]:
    """Angle by which to turn a plane, of the modalities x 2 x 2, and by how much the sum of logs falls."""

    def sums(angles: Floats) -> Floats:
        cosine, sine = np.cos(angles), np.sin(angles)
        a, b, d = (plane[:, i, j, None] for i, j in ((0, 0), (0, 1), (1, 1)))
        cross, turned = 2 * sine * cosine * b, np.empty((len(plane), 2, len(angles)))
        turned[:, 0] = cosine**2 * a + cross + sine**2 * d
        turned[:, 1] = sine**2 * a - cross + cosine**2 * d
        return _sum_of_logs(turned)

    step = np.pi / (2 * _N_ANGLES)
    angles = step * np.arange(-_N_ANGLES // 2, _N_ANGLES // 2)
    now = float(sums(np.zeros(1))[0])
    for _ in range(_REFINEMENTS):
        values = sums(angles)
        best = angles[values.argmin()]
        angles = best + step * np.linspace(-1, 1, _N_ANGLES + 1)
        step *= 2 / _N_ANGLES
    return float(best), now - float(values.min())


def _sum_of_logs(information: Floats) -> Floats:
    """Of the shares of the modalities (first axis), over these and the factors (second axis)."""
    shares = information / np.maximum(information.sum(0), np.finfo(float).tiny)
    return np.log(np.maximum(shares, 0) + _LEAST_SHARE).sum((0, 1))


def _canonical(matrix: Floats, grams: Sequence[Floats], loadings: Sequence[Floats]) -> Floats:
    """Signed by the modality in which a factor has most information: the heavier tail positive there."""
    sizes = np.stack([np.einsum("ik,ij,jk->k", matrix, gram, matrix) for gram in grams])
    skewness = np.stack([((own.astype(np.float64) @ matrix) ** 3).sum(0) for own in loadings])
    order = np.argsort(-sizes.sum(0), kind="stable")
    signs = np.where(skewness[sizes.argmax(0), np.arange(matrix.shape[1])] < 0, -1.0, 1.0)
    return (matrix * signs)[:, order]
