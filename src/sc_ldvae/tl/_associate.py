"""Association of factors with what is known of the cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae import assess
    from sc_ldvae._typing import Data

_log = logging.getLogger("sc_ldvae")


@door
def associate(
    data: Data,
    keys: Sequence[str] | None = None,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Association of each factor with columns of `obs`: which of them it follows, and how closely.

    For a categorical column the statistic is eta squared, the share of the factor's variance that lies between the
    levels [Fisher25]_. For a numeric one it is Spearman's rank correlation [Spearman04]_. Counts are not needed.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    keys
        Columns of `obs`; of a modality also those that only the MuData has. By default all of `obs` that are not
        constant and either numeric or categorical, boolean or text with 2 to 50 levels, fewer than cells. What fits
        left there is left out (library, marks of cells, scores by :func:`sc_ldvae.tl.elbo` and the like). Of a MuData
        also ``'<modality>:<name>'``, a column of `obs` of any modality, or one of its features as it stands in `X`:
        ``'prot:CD3'``. Raw counts of genes follow the library as well; normalise them first.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them: then `obs` is the MuData's.
    key_added
        Name of the result in `uns`, by default ``'<key>_associations'``.
    copy
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the copy. ``uns[key_added]`` gets arrays with one entry for each column of `obs` and factor:

    `factor`, `key`, `kind`
        Name of the factor, column of `obs`, and how it was read: ``'categorical'`` or ``'continuous'``.
    `statistic`
        Eta squared (0 to 1), or Spearman's correlation (-1 to 1, ties by average rank); 0 for a constant factor.
    `highest`, `lowest`
        Levels with the largest and the smallest mean of the factor; empty for a continuous column.
    `unknown_share`
        Share of the cells whose level says that it is not known, such as ``'unlabelled'``, ``'unknown'`` or ``'nan'``.

    Cells in which a column is missing are left out for that column. Those whose level is called ``'unlabelled'`` or the
    like are not: they count as a level of their own, which can hide that the others differ, and the log says so. Where
    levels do not matter at all, eta squared is about (levels - 1) / (cells - 1), not 0.

    Raises
    ------
    ValueError
        If there is no such fit, or a column is unknown, constant, neither categorical nor numeric, or has as many
        levels as cells. `data` is not changed.

    See Also
    --------
    sc_ldvae.get.associations : The result as a frame, strongest first.

    References
    ----------
    .. [Fisher25] Fisher (1925). Statistical Methods for Research Workers. Oliver and Boyd.
    .. [Spearman04] Spearman (1904). The proof and measurement of association between two things. American Journal of
       Psychology 15:72.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.associate(adata, ["batch", "ldvae_library"])
    >>> adata.uns["ldvae_associations"]["factor"].tolist()
    ['ldvae1', 'ldvae2', 'ldvae3', 'ldvae1', 'ldvae2', 'ldvae3']
    """
    from sc_ldvae import assess

    inputs.check_key(key_added)
    adata, stored = inputs.fitted_of(data, key, modality)
    # Refuses cells without a latent. What it gives is the model's: the object's own may have been rotated since.
    record.state_of(adata, stored)
    latent = record.shown_latent(adata, stored)[:, stored.left]
    obs = inputs.obs_of(adata) if keys is None else inputs.obs_for(data, modality)
    with inputs.told_whose(data, adata, and_all=keys is not None):
        obs = inputs.with_others(data, obs, keys or [])
        columns = inputs.columns_of(obs, keys, but=record.columns_in(adata) | inputs.pulled(adata))
    for column in columns:
        _tell_of_unknown(column)
    parts = [{"factor": stored.names_left, **assess.association(column, latent)} for column in columns]
    table = {
        name: np.concatenate([np.broadcast_to(np.asarray(part[name]), len(stored.left)) for part in parts])
        for name in parts[0]
    }
    name = key_added or f"{key}_associations"

    def write(adata: Data) -> None:
        record.write_result(adata, name, table, stored)

    return inputs.changed(data, modality, write, copy=copy)


def _tell_of_unknown(column: assess.Column) -> None:
    """Say that a level that is none counts as one: no cell is left out unless somebody asks for it."""
    levels = column.unknown_levels
    if levels:
        own = f"obs[{column.key!r}]"
        _log.warning(
            "%s: %s (%.1f %% of the cells) counts as a level. To leave these cells out, %s = %s.mask(%s.isin(%r)).",
            *(own, ", ".join(map(repr, levels)), 100 * column.unknown_share),
            *(own, own, own, levels),
        )
