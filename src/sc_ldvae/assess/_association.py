"""How closely factors follow what is known of the cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from sc_ldvae._products import inner

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats, Mask


# What people and tools write where they do not know the level of a cell, in small letters and without signs.
# 'none' is not among them: it says that there is nothing, as of a treatment.
_UNKNOWN = frozenset(
    {"", "?", "na", "n/a", "<na>", "nan", "null", "missing", "unknown", "undetermined", "unclassified", "unannotated"}
    | {"unlabelled", "unlabeled", "unassigned", "not assigned", "not available", "not applicable"}
)


@dataclass(frozen=True)
class Column:
    """A column of obs, without the cells in which it is missing."""

    key: str
    known: Mask
    """n_obs: where it is not missing."""
    entries: np.ndarray
    """Numbers, or positions among `levels`, of the known cells."""
    levels: tuple[str, ...] | None
    """None for a continuous column."""

    @property
    def unknown_levels(self) -> list[str]:
        """Those of the levels that say that the level of a cell is not known."""
        return [level for level in self.levels or () if re.sub(r"[\s_-]+", " ", level.lower()).strip() in _UNKNOWN]

    @property
    def unknown_share(self) -> float:
        """Share of the known cells that have one of those."""
        names = set(self.unknown_levels)
        unknown = [position for position, level in enumerate(self.levels or ()) if level in names]
        return float(np.isin(self.entries, unknown).mean()) if unknown else 0.0


def association(column: Column, latent: Floats) -> dict[str, object]:
    """Each factor's association with a column, out of the latent of all cells, n_obs x n_latent."""
    latent, told = latent[column.known], {"key": column.key, "unknown_share": column.unknown_share}
    if column.levels is None:
        statistic = _spearman(latent, column.entries)
        return told | {"kind": "continuous", "statistic": statistic, "highest": "", "lowest": ""}
    means, names = _means(latent, column.entries), np.array(column.levels)
    return told | {
        "kind": "categorical",
        "statistic": _eta_squared(latent, means, column.entries),
        "highest": names[means.argmax(axis=0)],
        "lowest": names[means.argmin(axis=0)],
    }


def _means(latent: Floats, codes: np.ndarray) -> Floats:
    """Levels x factors."""
    sizes = np.bincount(codes)
    membership = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    return membership @ latent / sizes[:, None]


def _eta_squared(latent: Floats, means: Floats, codes: np.ndarray) -> Floats:
    centre = latent.mean(axis=0)
    between = inner((means - centre) ** 2, np.bincount(codes).astype(np.float64)[:, None])[:, 0]
    return _ratio(between, ((latent - centre) ** 2).sum(axis=0))


def _spearman(latent: Floats, numbers: Floats) -> Floats:
    ranks, others = rankdata(latent, axis=0), rankdata(numbers)
    ranks, others = ranks - ranks.mean(axis=0), others - others.mean()
    return _ratio(inner(ranks, others[:, None])[:, 0], np.sqrt((ranks**2).sum(axis=0) * (others**2).sum()))


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Zero where there is no variance."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0).clip(-1, 1)
