"""The factors of the cells as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.inputs import check_once, fitted_of, obs_for, told_whose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data


@door
def latent(
    data: Data, obs_columns: Sequence[str] | str = (), *, key: str = record.DEFAULT, modality: str | None = None
) -> pd.DataFrame:
    """Value of each factor in each cell, beside columns of `obs`.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    obs_columns
        Columns of `obs` to put beside the factors; of a modality also those that only the MuData has, of a joint fit
        those of the MuData.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them, or one for the latent of its cells by what they have
        in it alone.

    Returns
    -------
    Cells (`obs_names`) x factors, as :func:`loadings` names them, those that have vanished among them (zeros), then the
    columns of `obs` as they are there. The latent is the posterior mean, that of ``obsm``: rotated after
    :func:`sc_ldvae.tl.rotate`, shares of one with ``latent_distribution='ln'``.

    Raises
    ------
    ValueError
        If there is no such fit or column, if a column is named twice or like a factor, or if cells have no latent or
        that of another fit.

    See Also
    --------
    factors : A row for each factor: what it explains and how it is distributed over the cells.
    loadings : Genes x factors.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> frame = sc_ldvae.get.latent(adata, "batch")
    >>> frame.columns.tolist()
    ['ldvae1', 'ldvae2', 'ldvae3', 'batch']
    >>> frame.groupby("batch", observed=True)["ldvae1"].mean().shape
    (2,)
    """
    shown, stored = fitted_of(data, key, modality)
    # Refuses cells without a latent. What it gives is the model's: the object's own may have been rotated since.
    record.state_of(shown, stored)
    values = record.shown_latent(shown, stored).astype(np.float32)
    frame = pd.DataFrame(values, shown.obs_names, stored.factor_names)
    names = [obs_columns] if isinstance(obs_columns, str) else obs_columns
    check_once(pd.Index(np.array(names, dtype=object)), "obs_columns")
    obs = obs_for(data, modality)
    with told_whose(data, shown, and_all=True):
        columns = [record.column_of(obs, name, "obs_columns") for name in names]
    for name, column in zip(names, columns, strict=True):
        if name in stored.factor_names:
            msg = f"obs_columns holds {name!r}, which is the name of a factor. Rename that column of obs."
            raise ValueError(msg)
        frame[name] = column.array
    return frame
