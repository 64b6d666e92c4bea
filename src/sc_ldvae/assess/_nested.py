"""Shares of the factors in what they explain together, which add up to it: Shapley values.

What a factor adds depends on which are there before it, so its share is the mean over the orders in which factors may
come. Two orders that are each other's reverse are enough: where factors overlap in pairs, they give the mean over all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.assess._information import gene_information

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats, Mask, Positions
    from sc_ldvae.assess._decoded import Decoded
    from sc_ldvae.record import Decoder


def in_order(decoder: Decoder, cells: Decoded) -> Positions:
    """The factors that have not vanished, by what they explain of these cells to second order, largest first."""
    loadings = decoder.log_proportion.loadings.astype(np.float64)
    information = gene_information(decoder, float(cells.library.mean()))
    sizes = cells.latent.var(0) * (information[:, None] * loadings**2).sum(0)
    order: Positions = np.argsort(-sizes, kind="stable")
    return order[~decoder.log_proportion.vanished[order]]


def nested(order: Positions, n_latent: int) -> Mask:
    """Factors that each set leaves out, 2 * len(order) x n_latent: next to each other they differ by one.

    First none, then one more at a time, the last first, until all are left out. Then they come back, the last first,
    until all but the first are there.
    """
    place, n = np.arange(len(order)), len(order)
    leaving = place >= n - np.arange(n + 1)[:, None]
    back = place < n - np.arange(1, n)[:, None]
    without = np.zeros((len(leaving) + len(back), n_latent), dtype=bool)
    without[:, order] = np.vstack([leaving, back])
    return without


def taken_away(deviances: Floats, order: Positions, n_latent: int) -> Floats:
    """What each factor takes away of the deviance, ... x n_latent, out of that without each of the `nested` sets.

    Its last axis may go on after them. The sum is the deviance without any factor less that with all.
    """
    n = len(order)
    first = deviances[..., n::-1]
    last = np.concatenate([first[..., :1], deviances[..., n + 1 : 2 * n], first[..., -1:]], axis=-1)[..., : n + 1]
    lost = np.zeros((*deviances.shape[:-1], n_latent))
    lost[..., order] = -(np.diff(first, axis=-1) + np.diff(last, axis=-1)[..., ::-1]) / 2
    return lost
