"""The latent with factors set to a value: what would a cell look like without, or with more of, a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._products import product

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sc_ldvae._typing import Floats

# Shares as they are typed, such as 0.7, 0.2 and 0.1, need not sum to one exactly.
_ROUNDING = 1e-9


def with_factors(
    latent: Floats, values: Mapping[int, float], *, composition: bool, rotation: Floats | None = None
) -> Floats:
    """The latent with some factors set to a value in every cell.

    Parameters
    ----------
    latent
        n_obs x n_latent.
    values
        New value of factors, by position from 0.
    composition
        Whether a cell's factors are shares of one ('ln'). Then the others share what is left as they did before.
    rotation
        The factors that are set are those of ``latent @ rotation``; the result is turned back.

    Raises
    ------
    ValueError
        If `composition` and the values are no shares.
    """
    if not values:
        return latent
    if rotation is not None:
        rotated = with_factors(product(latent, rotation), values, composition=composition)
        return product(rotated, np.linalg.inv(rotation)).astype(latent.dtype)
    changed, chosen = latent.copy(), list(values)
    changed[:, chosen] = np.array(list(values.values()))
    if not composition:
        return changed
    left = 1 - sum(values.values())
    if abs(left) < _ROUNDING:
        left = 0.0
    if min(values.values()) < 0 or left < 0 or (left > 0 and len(values) == latent.shape[1]):
        msg = f"factors: with latent_distribution='ln' factors are shares of one, but {list(values.values())} are not."
        raise ValueError(msg)
    others = np.delete(np.arange(latent.shape[1]), chosen)
    changed[:, others] *= left / np.maximum(changed[:, others].sum(1, keepdims=True), np.finfo(latent.dtype).tiny)
    return changed
