"""Enrichment of factors as a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_factor import stored_table, strongest_first
from sc_ldvae.inputs import pick_modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from sc_ldvae._typing import Data


@door
def enrichment(
    data: Data,
    factors: Sequence[int | str] | None = None,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    """What :func:`sc_ldvae.tl.enrichment` found, for each factor the largest absolute score first.

    Parameters
    ----------
    data
        AnnData with such a result, or MuData with such a `modality`.
    factors
        Factors by number from 1 or by name; all that it was asked for if None.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        The `key_added` of the enrichment, by default ``'<key>_enrichment'``.

    Returns
    -------
    One row per factor and source, indexed by both (`factor`, `source`), with `score` (positive: cells high in the
    factor express the targets more), `pvalue`, `qvalue` (over all factors and sources that were computed) and
    `n_targets` (targets among the fitted genes).

    Raises
    ------
    ValueError
        If there is no such fit, result or factor.

    Examples
    --------
    >>> import pandas as pd, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> net = pd.DataFrame({"source": "set", "target": adata.var_names[:10]})
    >>> sc_ldvae.tl.enrichment(adata, net)
    >>> sc_ldvae.get.enrichment(adata, ["ldvae2"]).index.tolist()
    [('ldvae2', 'set')]
    """
    adata = pick_modality(data, modality)
    columns = ("source", "score", "pvalue", "qvalue", "n_targets")
    stored = record.read(adata, key)
    frame = stored_table(adata, stored, key_added or f"{key}_enrichment", "enrichment", columns, factors)
    return strongest_first(frame, frame["score"].abs(), "source")
