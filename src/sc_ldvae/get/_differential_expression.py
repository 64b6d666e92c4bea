"""Differential expression as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sc_ldvae._arguments import door
from sc_ldvae.get._symbols import renamed, symbols_of
from sc_ldvae.inputs import pick_modality
from sc_ldvae.record import ALONE, read_comparison

if TYPE_CHECKING:
    from sc_ldvae._typing import Data


@door
def differential_expression(
    data: Data,
    group: str | None = None,
    *,
    key: str = "rank_genes_groups",
    modality: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """All columns that :func:`sc_ldvae.tl.differential_expression` stored.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality`.
    group
        One group; all by default.
    key
        The `key_added` of the comparison.
    modality
        Modality of a MuData.
    gene_symbols
        Column of `var` with the names to show, as in :func:`loadings`.

    Returns
    -------
    One row per group and fitted gene, in the order of the scores, indexed by gene (`names`) for one group, by group and
    gene for all. Columns as described there.

    Raises
    ------
    ValueError
        If there is no such result, group or column.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> adata.obs["side"] = ["left", "right"] * 100
    >>> sc_ldvae.tl.differential_expression(adata, "side", progress=False)
    >>> sc_ldvae.get.differential_expression(adata, "left").columns.tolist()[:4]
    ['scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    """
    adata = pick_modality(data, modality)
    symbols = symbols_of({ALONE: adata}, gene_symbols)[ALONE]
    frames = {
        name: frame.assign(names=renamed(pd.Index(frame["names"]), symbols))
        for name, frame in read_comparison(adata, key, group).items()
    }
    if group is not None:
        return frames[group].set_index("names")
    return pd.concat(frames, names=["group"]).reset_index("group").set_index(["group", "names"])
