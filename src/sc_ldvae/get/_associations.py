"""Associations of factors with columns of obs as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_factor import stored_table, strongest_first
from sc_ldvae.inputs import fitted_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from sc_ldvae._typing import Data


@door
def associations(
    data: Data,
    factors: Sequence[int | str] | None = None,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    """What :func:`sc_ldvae.tl.associate` found, for each factor the strongest association first.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    key_added
        The `key_added` of the associations, by default ``'<key>_associations'``.

    Returns
    -------
    One row per factor and column of `obs`, indexed by both (`factor`, `key`), with `kind` (``'categorical'``,
    ``'continuous'``), `statistic` (eta squared, or Spearman's correlation), `strength` (square root of eta squared, or
    the correlation without its sign: on one scale, 0 to 1), `highest` and `lowest` (levels with the largest and the
    smallest mean of the factor), and `unknown_share` (share of the cells in levels such as ``'unlabelled'``, which
    count as levels; missing in results that an older version wrote).

    Raises
    ------
    ValueError
        If there is no such fit, result or factor.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.associate(adata)
    >>> sc_ldvae.get.associations(adata, [1]).columns.tolist()
    ['kind', 'statistic', 'strength', 'highest', 'lowest', 'unknown_share']
    """
    shown, stored = fitted_of(data, key, modality)
    columns = ("key", "kind", "statistic", "highest", "lowest")
    later = {"unknown_share": np.nan}
    frame = stored_table(shown, stored, key_added or f"{key}_associations", "associate", columns, factors, later)
    size = frame["statistic"].abs()
    strength = size.where(frame["kind"] == "continuous", np.sqrt(size))
    frame.insert(columns.index("highest") + 1, "strength", strength)
    return strongest_first(frame, strength, "key")
