"""A linearly decoded VAE as plain arrays, whichever package fitted it: one batch, latent library, NB per gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    Floats = NDArray[np.float64]

# Both packages add it to the variance of the encoder.
VARIANCE_FLOOR = 1e-4


class Affine(NamedTuple):
    """``x @ weight.T + bias``."""

    weight: Floats
    bias: Floats

    def __call__(self, x: Floats | csr_matrix) -> Floats:
        """Map rows."""
        return x @ self.weight.T + self.bias


class Normal(NamedTuple):
    """Mean and variance of independent normal variables, both n_cells x n."""

    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Encoder:
    """``log1p(counts)`` through affine maps with ReLU between them, BatchNorm folded in."""

    hidden: tuple[Affine, ...]
    mean: Affine
    log_variance: Affine

    def __call__(self, counts: csr_matrix) -> Normal:
        """Posterior of each cell."""
        h = counts.astype(np.float64).log1p()
        for layer in self.hidden:
            h = np.maximum(layer(h), 0)
        return Normal(self.mean(h), np.exp(self.log_variance(h)) + VARIANCE_FLOOR)


@dataclass(frozen=True)
class CountModel:
    """Encoders, prior of the log library, and decoder."""

    z_encoder: Encoder
    library_encoder: Encoder
    library_prior: tuple[float, float]
    """Mean and variance of the log library."""
    decoder: Affine
    """Latent to log proportions, up to the softmax over genes."""
    log_theta: Floats
    """Log inverse dispersion, n_genes."""
