"""Covariance matrices of the loadings' estimates, one per gene, as a file keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats


def packed(covariance: Floats) -> NDArray[np.float32]:
    """Lower triangles (in the order of ``np.tril_indices``) of n_genes x K x K matrices, n_genes x K * (K + 1) / 2.

    Examples
    --------
    >>> import numpy as np
    >>> packed(np.array([[[4.0, 1.0], [1.0, 9.0]]]))
    array([[4., 1., 9.]], dtype=float32)
    """
    rows, columns = np.tril_indices(covariance.shape[-1])
    return np.ascontiguousarray(covariance[:, rows, columns], dtype=np.float32)


def unpacked(triangles: Floats, n_latent: int) -> Floats:
    """The symmetric matrices of which `packed` kept the lower triangles, n_genes x n_latent x n_latent."""
    rows, columns = np.tril_indices(n_latent)
    covariance = np.empty((len(triangles), n_latent, n_latent), dtype=triangles.dtype)
    covariance[:, rows, columns] = covariance[:, columns, rows] = triangles
    return covariance


def turned(covariance: Floats, turn: Floats) -> NDArray[np.float64]:
    """The matrices of the loadings of ``latent @ turn``, n_genes x n_latent x n_latent."""
    to_loadings = np.linalg.inv(turn)
    return to_loadings @ covariance.astype(np.float64) @ to_loadings.T
