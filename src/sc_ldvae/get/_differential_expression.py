"""Differential expression as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sc_ldvae._modality import pick_modality
from sc_ldvae.record import strings

if TYPE_CHECKING:
    from sc_ldvae._typing import Data

# Files do not keep their order.
_COLUMNS = (
    "scores",
    "logfoldchanges",
    "pvals",
    "pvals_adj",
    "lfc_sd",
    "proba_de",
    "bayes_factor",
    "is_de",
    "proportion",
    "proportion_reference",
)


def differential_expression(
    data: Data, group: str | None = None, *, key: str = "rank_genes_groups", modality: str | None = None
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

    Returns
    -------
    One row per group and fitted gene, in the order of the scores, indexed by gene (`names`) for one group, by group and
    gene for all. Columns as described there.

    Raises
    ------
    ValueError
        If there is no such result or group.

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
    stored = adata.uns.get(key, {})
    if "proba_de" not in stored:
        msg = (
            f"uns[{key!r}] holds no comparison by sc_ldvae.tl.differential_expression. Make one, or name it with key=."
        )
        raise ValueError(msg)
    groups = list(stored["names"].dtype.names)
    if group is not None and group not in groups:
        msg = f"group={group!r} was not compared. Groups: {', '.join(map(repr, groups))}."
        raise ValueError(msg)
    frames = {
        one: pd.DataFrame({"names": strings(stored["names"][one])} | {name: stored[name][one] for name in _COLUMNS})
        for one in ([group] if group is not None else groups)
    }
    # The proportions of fitted genes are never zero.
    frames = {one: frame[frame["proportion_reference"] > 0] for one, frame in frames.items()}
    if group is not None:
        return frames[group].set_index("names")
    return pd.concat(frames, names=["group"]).reset_index("group").set_index(["group", "names"])
