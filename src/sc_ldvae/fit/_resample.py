"""Cells of refits: disjoint halves, bootstrap samples, or the same again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sc_ldvae._typing import Mask, Positions

Subsample: TypeAlias = Literal["halves", "bootstrap"]


class Resampled(NamedTuple):
    """Positions of the cells to train on, in which a cell may be repeated, and of those held out."""

    training: Positions
    others: Positions


def halves(strata: np.ndarray, rng: np.random.Generator) -> tuple[Resampled, Resampled]:
    """Two random halves of the cells, each with half of every stratum, and each held out from the other."""
    order = np.lexsort((rng.random(len(strata)), strata))
    first, second = np.sort(order[::2]), np.sort(order[1::2])
    return Resampled(first, second), Resampled(second, first)


def resampled(
    n: int, subsample: Subsample | None, strata: np.ndarray, held_out: Mask, rng: np.random.Generator
) -> Iterator[Resampled]:
    """Cells of `n` refits; halves come in pairs.

    Parameters
    ----------
    n
        Number of refits.
    subsample
        None for the cells of the fit itself.
    strata
        Batch of each cell, n_obs.
    held_out
        Cells that the fit itself has not seen, n_obs.
    rng
        Source of the samples.
    """
    if subsample == "halves":
        for _ in range(n // 2):
            yield from halves(strata, rng)
        return
    for _ in range(n):
        if subsample is None:
            yield Resampled(np.flatnonzero(~held_out), np.flatnonzero(held_out))
        else:
            drawn = np.sort(rng.integers(len(strata), size=len(strata)))
            yield Resampled(drawn, np.setdiff1d(np.arange(len(strata)), drawn))
