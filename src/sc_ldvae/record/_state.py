"""What a fit left of each cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Floats, Positions
    from sc_ldvae.record._record import Record


@dataclass(frozen=True)
class State:
    """Posterior and library of cells, one row each, in the frame of the model: before a rotation."""

    latent: Floats
    """Posterior mean, n_obs x n_latent; for 'ln' its softmax."""
    variance: Floats
    """Posterior variance, n_obs x n_latent; for 'ln' before the softmax."""
    library: Floats
    """n_obs."""

    def __len__(self) -> int:
        return len(self.library)

    def rows(self, cells: slice | Positions) -> State:
        """Some of the cells."""
        return State(self.latent[cells], self.variance[cells], self.library[cells])


def state_of(adata: AnnData, stored: Record) -> State:
    """What a fit left of the cells of `adata`.

    Raises
    ------
    ValueError
        If some of the cells were not in the fit, or the library is gone, or the latent is that of something else.
    """
    if stored.keys.library not in adata.obs:
        missing = f"obs[{stored.keys.library!r}] is gone. Put it back, or fit again."
        msg = f"uns[{stored.keys.uns!r}] holds a fit, but {missing}"
        raise ValueError(msg)
    latent, variance = (np.asarray(adata.obsm[key], np.float32) for key in (stored.keys.latent, stored.keys.variance))
    for key, array in ((stored.keys.latent, latent), (stored.keys.variance, variance)):
        if array.shape[1:] != (stored.n_latent,):
            msg = f"obsm[{key!r}] has the shape {array.shape}, but the fit has {stored.n_latent} factors. Put it back."
            raise ValueError(msg)
    if stored.rotation is not None:
        latent = (latent @ np.linalg.inv(stored.rotation)).astype(np.float32)
    state = State(latent, variance, adata.obs[stored.keys.library].to_numpy(dtype=np.float32))
    unknown = ~np.isfinite(np.column_stack([latent, variance, state.library])).all(1)
    if unknown.any():
        msg = (
            f"{unknown.sum()} of {len(unknown)} cells have no latent (for example {adata.obs_names[unknown][0]!r}), as "
            "when objects are concatenated. Map them with sc_ldvae.tl.project first."
        )
        raise ValueError(msg)
    return state
