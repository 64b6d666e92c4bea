"""Where a map puts the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae._said import said
from sc_ldvae.pl._text import shown

if TYPE_CHECKING:
    from sc_ldvae._typing import Data, Floats


class Places(NamedTuple):
    """Where the cells are."""

    positions: Floats
    """n_obs x 2."""
    labels: tuple[str, str]
    """Of the axes."""

    @classmethod
    def of(cls, data: Data, basis: str | None, latent: Floats) -> Places:
        found = _embeddings(data)
        if basis is None:
            basis = next((name for name in ("X_umap", "X_tsne") if name in found), None)
        if basis is None:
            # A single factor puts its cells on a line.
            return cls(np.pad(latent, ((0, 0), (0, 1)))[:, :2], ("Factor 1", "Factor 2" if latent.shape[1] > 1 else ""))
        # As scanpy has it: the entry itself first.
        name = next((name for name in (basis, f"X_{basis}") if name in found), None)
        if name is None:
            msg = f"basis={basis!r} is not in obsm. Choose one of {', '.join(map(said, found))}."
            raise ValueError(msg)
        holder = found[name]
        positions = np.asarray(holder.obsm[name])
        if positions.ndim < 2 or positions.shape[1] < 2:  # noqa: PLR2004  a plane has two dimensions
            msg = f"basis={basis!r} has the shape {positions.shape}, but two columns are needed to place the cells."
            raise ValueError(msg)
        positions = positions[:, :2].astype(float)
        if holder is not data:
            # Cells without a place are not drawn.
            places = np.full((data.n_obs, 2), np.nan)
            places[data.obs_names.get_indexer(holder.obs_names)] = positions
            positions = places
        return cls(positions, (shown(name.removeprefix("X_")), ""))


def _embeddings(data: Data) -> dict[str, Any]:
    """Who has each entry of obsm: the object itself, or one of its modalities."""
    holders = [data, *getattr(data, "mod", {}).values()]
    return {name: holder for holder in reversed(holders) for name in holder.obsm}
