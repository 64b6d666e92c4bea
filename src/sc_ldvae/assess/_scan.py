"""What fits to halves of the cells say of the number of factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sc_ldvae._typing import Floats

# Cosine between halves of a factor that comes back.
_FOUND = 0.5


@dataclass(frozen=True)
class Scan:
    """One split of the cells, one row per number of factors."""

    elbo: Floats
    """Of each cell, by the fit that has not seen it."""
    explained_deviance: Floats
    cosines: list[Floats]
    """Between the matched factors of the two halves."""
    n_active: Floats


def scan_table(grid: Sequence[int], scans: Sequence[Scan]) -> dict[str, Any]:
    """Means over the splits, one entry per number of factors."""
    per_cell = np.mean([scan.elbo for scan in scans], axis=0)
    elbo = per_cell.mean(1)
    behind = per_cell[elbo.argmax()] - per_cell
    cosines = [np.array([scan.cosines[row] for scan in scans]) for row in range(len(grid))]
    return {
        "n_latent": np.array(grid),
        "elbo": elbo,
        "elbo_behind": behind.mean(1),
        "elbo_behind_se": behind.std(1) / np.sqrt(per_cell.shape[1]),
        "explained_deviance": np.mean([scan.explained_deviance for scan in scans], axis=0),
        "stability": np.array([one.mean() for one in cosines]),
        "n_stable": np.array([(one >= _FOUND).sum(1).mean() for one in cosines]),
        "n_active": np.mean([scan.n_active for scan in scans], axis=0),
    }


def recommended(table: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest number within one standard error of the best, and why."""
    grid, behind, error = table["n_latent"], table["elbo_behind"], table["elbo_behind_se"]
    best, chosen = int(table["elbo"].argmax()), int((behind <= error).argmax())
    reason = f"{grid[chosen]} factors have the best held-out ELBO"
    if chosen != best:
        reason = (
            f"{grid[chosen]} factors are the fewest whose held-out ELBO is within one standard error of the best: "
            f"{behind[chosen]:.2f} +- {error[chosen]:.2f} nats per cell behind {grid[best]} factors"
        )
    reason += f"; {table['n_stable'][chosen]:g} of them come back in the other half of the cells."
    if len(grid) > 1 and (chosen == len(grid) - 1 or 1 < grid[chosen] == grid[0]):
        end = "smallest" if chosen == 0 else "largest"
        reason += f" It is the {end} number that was tried: widen the range."
    return {"recommended": int(grid[chosen]), "reason": reason}
