"""Enrichment of factors in gene sets and regulons."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from scipy.stats import false_discovery_control

from sc_ldvae import get, inputs, record
from sc_ldvae._arguments import door
from sc_ldvae.assess import Enrichment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from sc_ldvae._typing import Data


@door
def enrichment(
    data: Data,
    net: pd.DataFrame,
    *,
    factors: Sequence[int | str] | None = None,
    method: Enrichment = "ulm",
    tmin: int = 5,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> Data | None:
    """Enrichment of each factor's loadings in gene sets, pathways or regulons, by decoupler [Badia22]_.

    Where the fit has standard errors, a loading enters as the signed square root of its z score (loading / standard
    error). The division keeps genes that are poorly measured from posing as targets, the root keeps a single highly
    expressed gene from carrying a set: with z scores as they are, random sets of 15 genes that hold a factor's most
    extreme gene are significant in 67 % of cases on pbmc3k (5 % expected, 17 % with the root); with plain loadings,
    random sets of the least measured genes are in 22 % (2 %). Where there are none, loadings enter as they are.

    Needs the extra ``enrich``. Counts are not needed.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    net
        One row per source (set, pathway, regulator) and target gene, in the columns `source` and `target`, with an
        optional signed `weight` (1 by default), as decoupler's own resources are. Further columns are ignored.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    method
        Which of decoupler's methods: ``'ulm'``, t statistic of a linear model with one source; ``'mlm'``, with all
        sources at once, so that what overlapping sources share counts for none; ``'zscore'``, weighted mean of the
        targets against all genes. Others are refused: they do without the sign, the weights or a p-value in closed
        form.
    tmin
        Fewest targets of a source among the fitted genes; sources with fewer are left out.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        Name of the result in `uns`, by default ``'<key>_enrichment'``.
    copy
        Return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the copy. ``uns[key_added]`` gets arrays with one entry for each factor and source:

    `factor`, `source`
        Their names.
    `score`
        Positive: the loadings of the source's targets are above those of the other fitted genes, so that cells high in
        the factor express them more. Negative: less. The other way round for targets of negative weight.
    `pvalue`, `qvalue`
        Two-sided p-value, and its Benjamini-Hochberg adjustment over all factors and sources [Benjamini95]_. Genes are
        taken for independent, which genes of one set are not: p-values order the sources, and are too small to be
        taken at their word.
    `n_targets`
        Targets among the fitted genes.

    Raises
    ------
    ImportError
        If decoupler is not installed.
    TypeError
        If `net` is not a frame.
    ValueError
        If there is no such fit, factor or method, or `net` lacks columns or values, contradicts itself, or has no
        source with enough targets. `data` is not changed.

    See Also
    --------
    sc_ldvae.get.enrichment : The result as a frame, strongest first.

    References
    ----------
    .. [Badia22] Badia-i-Mompel et al. (2022). decoupleR: ensemble of computational methods to infer biological
       activities from omics data. Bioinformatics Advances 2:vbac016.
    .. [Benjamini95] Benjamini, Hochberg (1995). Controlling the false discovery rate. Journal of the Royal Statistical
       Society B 57:289.

    Examples
    --------
    >>> import pandas as pd, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> net = pd.DataFrame({"source": "set", "target": adata.var_names[:10]})
    >>> sc_ldvae.tl.enrichment(adata, net)
    >>> sc_ldvae.get.enrichment(adata)["n_targets"].tolist()
    [10, 10, 10]
    """
    from sc_ldvae import assess

    inputs.check_key(key_added)
    inputs.check_whole(tmin=tmin)
    if method not in get_args(Enrichment):
        msg = f"method={method!r} is unknown. Choose one of {', '.join(map(repr, get_args(Enrichment)))}."
        raise ValueError(msg)
    adata = inputs.pick_modality(data, modality)
    loadings = _loadings(adata, factors, key)
    weights, n_targets = inputs.targets_of(net, loadings.index, tmin, independent=method == "mlm")
    scores, pvalues = assess.enriched(method, loadings.to_numpy(np.float64).T, weights)
    table = {
        "factor": np.repeat(loadings.columns.to_numpy().astype(str), len(n_targets)),
        "source": np.tile(n_targets.index.to_numpy().astype(str), loadings.shape[1]),
        "score": scores.ravel(),
        "pvalue": pvalues.ravel(),
        "qvalue": false_discovery_control(pvalues.ravel()),
        "n_targets": np.tile(n_targets.to_numpy(np.int64), loadings.shape[1]),
    }
    stored, name = record.read(adata, key), key_added or f"{key}_enrichment"

    def write(adata: AnnData) -> None:
        record.write_result(adata, name, table, stored)

    return inputs.changed(data, modality, write, copy=copy)


def _loadings(adata: AnnData, factors: Sequence[int | str] | None, key: str) -> pd.DataFrame:
    """Genes x factors; where there are standard errors, signed square roots of z scores."""
    inputs.check_any(factors, "factors")
    chosen = inputs.factors_shown(record.read(adata, key), factors)
    loadings = get.loadings(adata, chosen, key=key)
    try:
        errors = get.loadings_se(adata, chosen, key=key)
    except ValueError:
        # Everything else that it could refuse, the line before has refused.
        return loadings
    return (loadings.abs() / errors) ** 0.5 * np.sign(loadings)
