"""A fitted model as plain arrays: what a module is made of again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sc_ldvae._options import Levels, ModelOptions
    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.record._decoder import Decoder


@dataclass(frozen=True)
class Folded:
    """Decoder and encoders with BatchNorm folded in, and what the arrays do not tell."""

    decoder: Decoder
    encoders: Mapping[str, Mapping[str, Floats]]
    """``'z'``, and ``'library'`` where that is latent: weights and biases by name."""
    library_prior: Mapping[str, Floats] | None
    """``log_mean`` and ``log_variance`` by batch, where the library is latent."""
    options: ModelOptions
    levels: Levels
    expert: bool = False
    """Whether the posterior of the latent is the product of what the encoder says with the prior, and with what those
    of other modalities say."""

    def reordered(self, order: Positions, signs: Floats) -> Folded:
        """Factors in another order, each times its sign, in decoder and encoder alike."""
        z, single = self.encoders["z"], signs.astype(np.float32)
        z = {
            **z,
            "mean_weight": z["mean_weight"][order] * single[:, None],
            "mean_bias": z["mean_bias"][order] * single,
            "log_variance_weight": z["log_variance_weight"][order],
            "log_variance_bias": z["log_variance_bias"][order],
        }
        decoder = self.decoder.reordered(order, signs)
        return replace(self, decoder=decoder, encoders={**self.encoders, "z": z})
