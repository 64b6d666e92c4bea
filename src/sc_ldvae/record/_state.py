"""What a fit left of each cell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae._lazy import array_of
from sc_ldvae._products import product
from sc_ldvae._said import said
from sc_ldvae.record import _marks as marks
from sc_ldvae.record._record import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_ldvae._typing import Data, Floats, Positions
    from sc_ldvae.record._joint import JointRecord


@dataclass(frozen=True)
class State:
    """Posterior and library of cells, one row each, in the frame of the model: before a rotation."""

    latent: Floats
    """Posterior mean, n_obs x n_latent; for 'ln' its softmax."""
    variance: Floats
    """Posterior variance, n_obs x n_latent; for 'ln' before the softmax."""
    library: Floats
    """n_obs; of several modalities n_obs x modalities."""

    def __len__(self) -> int:
        return len(self.library)

    def rows(self, cells: slice | Positions) -> State:
        """Some of the cells."""
        return State(self.latent[cells], self.variance[cells], self.library[cells])

    def of_view(self, cells: Positions, place: int) -> State:
        """The cells at these positions, with their library in one of the modalities."""
        own = self.rows(cells)
        return own if own.library.ndim == 1 else replace(own, library=np.ascontiguousarray(own.library[:, place]))


def check_cells(adata: Data) -> None:
    """Refuse an object from which all cells were filtered."""
    if not adata.n_obs:
        msg = "data has no cells. Take some: of none there is nothing to compute."
        raise ValueError(msg)


def state_of(adata: Data, stored: Record | JointRecord) -> State:
    """What a fit left of the cells of `adata`; of a joint one, of those of a MuData.

    Raises
    ------
    ValueError
        If there are no cells, if some of them were not in the fit, or in another one, or if what it left is gone or is
        something else.
    """
    check_cells(adata)
    keys = stored.keys
    latent, variance = (_matrix(adata, key, stored.n_latent) for key in (keys.latent, keys.variance))
    library, fits = _library(adata, stored), marks.fits(adata, stored)
    numbers = [latent, variance] if library.ndim > 1 else [latent, variance, library]
    unknown = ~np.isfinite(np.column_stack(numbers)).all(1) | pd.isna(fits)
    if unknown.any():
        example = said(adata.obs_names[unknown][0])
        msg = (
            f"{unknown.sum()} of {len(unknown)} cells have no latent (for example {example}), as when objects are "
            "concatenated. Map them with sc_ldvae.tl.project first."
        )
        raise ValueError(msg)
    strangers = fits != stored.fingerprint
    if strangers.any():
        msg = (
            f"{strangers.sum()} of {len(strangers)} cells (for example {said(adata.obs_names[strangers][0])}) have a "
            f"latent of another fit than uns[{keys.uns!r}], as obs[{keys.fit!r}] says: objects that were fitted one by "
            "one share no factors. Map the cells of one onto the fit of the other with sc_ldvae.tl.project, or fit all."
        )
        raise ValueError(msg)
    _check_variance(variance, stored)
    if (library <= 0).any():
        msg = f"obs[{keys.library!r}] holds values that are not above zero. Put them back, or fit again."
        raise ValueError(msg)
    if stored.rotation is not None:
        latent = product(latent, np.linalg.inv(stored.rotation)).astype(np.float32)
    return State(latent, variance, library)


def _library(data: Any, stored: Record | JointRecord) -> NDArray[np.float32]:  # noqa: ANN401  either of two
    """n_obs; of several modalities n_obs x modalities, missing where a cell lacks one, or all cells do."""
    if isinstance(stored, Record):
        return marks.library(data, stored)
    library = np.full((data.n_obs, len(stored.modalities)), np.nan, np.float32)
    for place, (name, view) in enumerate(stored.views.items()):
        if name in data.mod:
            rows = data.obs_names.get_indexer(data.mod[name].obs_names)
            library[rows[rows >= 0], place] = marks.library(data.mod[name], view)[rows >= 0]
    return library


def shown_latent(adata: Data, stored: Record | JointRecord) -> NDArray[np.float64]:
    """Of all cells, in the frame in which the factors are shown, n_obs x n_latent; missing where a cell has none."""
    return _matrix(adata, stored.keys.latent, stored.n_latent).astype(np.float64)


def shown_variance(adata: Data, stored: Record | JointRecord) -> NDArray[np.float64]:
    """The posterior variance of that, n_obs x n_latent."""
    variance = _matrix(adata, stored.keys.variance, stored.n_latent).astype(np.float64)
    _check_variance(variance, stored)
    return variance if stored.rotation is None else product(variance, stored.rotation**2)


def _check_variance(variance: Floats, stored: Record | JointRecord) -> None:
    if (variance < 0).any():
        msg = f"obsm[{stored.keys.variance!r}] holds values below zero. Put them back, or fit again."
        raise ValueError(msg)


def _matrix(adata: Data, key: str, n_latent: int) -> NDArray[np.float32]:
    """An entry of obsm as it was written, but for its precision."""
    stored = array_of(adata.obsm[key])
    shape, dtype = getattr(stored, "shape", ()), getattr(stored, "dtype", np.dtype(object))
    # Halves and integers: somebody has rounded.
    if not isinstance(stored, np.ndarray) or dtype.kind != "f" or dtype.itemsize < np.dtype(np.float32).itemsize:
        msg = f"obsm[{key!r}] is a {type(stored).__name__} of {dtype}, but the fit left numbers. Put them back."
        raise ValueError(msg)
    if shape[1:] != (n_latent,):
        msg = f"obsm[{key!r}] has the shape {shape}, but the fit has {n_latent} factors. Put it back."
        raise ValueError(msg)
    # What is beyond single precision becomes infinite, and is no latent.
    with np.errstate(over="ignore"):
        return np.asarray(stored, np.float32)
