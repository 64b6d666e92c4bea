"""The genes to draw of each factor in each modality."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sc_ldvae import get
from sc_ldvae.pl._ends import Panel
from sc_ldvae.pl._text import shown
from sc_ldvae.pl._wording import factor_titles, unit_of
from sc_ldvae.record import JointRecord

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd

    from sc_ldvae._typing import Data
    from sc_ldvae.assess import Method
    from sc_ldvae.get import By, Per
    from sc_ldvae.record import Record

T = TypeVar("T", "pd.DataFrame", "pd.Series[float]")


def top_panels(
    data: Data,
    stored: Record | JointRecord,
    factors: Sequence[str],
    n_genes: int,
    *,
    by: By,
    rotation: Method | None,
    per: Per,
    log2: bool,
    **where: Any,  # noqa: ANN401  key, modality, gene_symbols and genes, as get.loadings has them
) -> dict[str, list[Panel]]:
    """What to draw of each factor in each modality, by the name of the factor."""
    unit: Any = {"rotation": rotation, "per": per, "log2": log2, **where}
    frame = get.loadings(data, factors, **unit)
    table = get.top_genes(data, n_genes, factors=factors, by=by, **unit)
    titles = factor_titles(stored, rotation)
    modalities = frame.index.unique("modality") if isinstance(stored, JointRecord) else [""]
    return {
        name: [
            Panel(
                f"{titles[name]}: {shown(one)}" if one else titles[name],
                f"loading ({unit_of(per, log2=log2)})",
                _of_modality(frame[name], one),
                _of_modality(table[table.index.get_level_values("factor") == name].droplevel("factor"), one),
                one,
            )
            for one in modalities
        ]
        for name in factors
    }


def _of_modality(table: T, modality: str) -> T:
    """Its rows, indexed by gene; all of them where there is only one."""
    if not modality:
        return table
    return table[table.index.get_level_values("modality") == modality].droplevel("modality")


def shares_by_modality(whose: Data, stored: Record | JointRecord, key: str) -> Mapping[Hashable, pd.Series[float]]:
    """What the factors explain of the deviance of each modality, as the fit measured it.

    `whose` is the object of the fit: the AnnData, or the MuData of a joint one.
    """
    if isinstance(stored, JointRecord):
        return dict(get.modalities(whose, key=key).items())
    return {"": get.factors(whose, key=key)["explained_deviance"]}
