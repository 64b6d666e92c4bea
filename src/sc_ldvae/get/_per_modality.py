"""Frames of a fit of one modality or of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from sc_ldvae.record import ALONE, JointRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Floats
    from sc_ldvae.record import Record


def objects_of(shown: Any, stored: Record | JointRecord) -> dict[str, AnnData]:  # noqa: ANN401  either of two
    """Who holds the genes of each modality of a fit; what has left a MuData is left out."""
    if not isinstance(stored, JointRecord):
        return {ALONE: shown}
    return {name: shown.mod[name] for name in stored.views if name in shown.mod}


def stacked(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Genes of all modalities below each other, indexed by modality and gene; of the only one, its own frame."""
    return frames[ALONE] if ALONE in frames else pd.concat(frames, names=["modality", "gene"])


def shares_by_modality(
    stored: JointRecord, modalities: Sequence[str], shares: Floats, totals: Sequence[float]
) -> pd.DataFrame:
    """Of `shares`, modalities x n_latent, those of the factors that have not vanished: factors x modalities."""
    factors, columns = pd.Index(stored.names_left, name="factor"), pd.Index(modalities, name="modality")
    frame = pd.DataFrame(shares[:, stored.left].T, factors, columns)
    frame.attrs["total"] = dict(zip(modalities, map(float, totals), strict=True))
    return frame
