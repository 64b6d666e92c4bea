"""The genes that make a factor what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from sc_ldvae import assess, record
from sc_ldvae._arguments import door
from sc_ldvae.get._view import View
from sc_ldvae.inputs import factors_shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data, Mask
    from sc_ldvae.get._view import Per, Shown

By: TypeAlias = Literal["bound", "loading"]

# Standard errors on either side of a 95 % interval.
HALF_INTERVAL = 1.96


@door
def top_genes(
    data: Data,
    n_genes: int = 10,
    *,
    factors: Sequence[int | str] | None = None,
    by: By = "bound",
    rotation: assess.Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    genes: Shown = "all",
) -> pd.DataFrame:
    """Genes with the largest and the smallest loadings of each factor.

    Rare genes can have large loadings that are little more than noise. Ranked by what they are at the least, genes come
    first whose loadings are large beyond doubt [Harrison19]_.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    n_genes
        Number of genes per factor and direction, of a joint fit in each modality.
    factors
        Factors by number from 1 or by name; all that have not vanished if None.
    by
        Rank genes by the size of what the loading is at least, the end of its 95 % interval that is nearer to zero
        (``'bound'``: 1.96 standard errors less; genes whose interval holds zero come after all others), or by that of
        the loading itself (``'loading'``, which fits without errors have in any case).
    rotation, per, log2
        As in :func:`loadings`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in :func:`loadings`.
    genes
        ``'all'`` with loadings, or those of the fit alone (``'fitted'``), as in :func:`loadings`.

    Returns
    -------
    One row per factor, direction and gene, indexed by factor and gene (of a joint fit by factor, modality and gene),
    with the columns `direction` (``'positive'``,
    ``'negative'``), `rank` (1 is the first) and `loading`. A gene stands in the direction of its sign only.
    Where the fit has errors, also `se` (standard error of the loading), `lfsr` (local false sign rate: probability that
    the loading is zero or of the other sign) and `qvalue` (mean `lfsr` of the factor's loadings that are at least as
    sure). Where :func:`sc_ldvae.tl.extend` gave loadings to other genes, also `fitted` (whether the gene was fitted).

    Raises
    ------
    ValueError
        As :func:`loadings`, if `n_genes` is below one, or if `by` is unknown.

    References
    ----------
    .. [Harrison19] Harrison, Pattison, Powell, Beilharz (2019). Topconfects: a package for confident effect sizes in
       differential expression analysis provides a more biologically useful ranked gene list. Genome Biology 20:67.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> len(sc_ldvae.get.top_genes(adata, 5).loc["ldvae1"])
    10
    """
    if n_genes < 1:
        msg = f"n_genes must be at least 1, but is {n_genes}."
        raise ValueError(msg)
    if by not in get_args(By):
        msg = f"by={by!r} is unknown. Choose 'bound' or 'loading'."
        raise ValueError(msg)
    view = View.of(data, rotation, per, key, modality, log2=log2, gene_symbols=gene_symbols, genes=genes)
    chosen = factors_shown(view.stored, factors)
    frames, errors = view.loadings(chosen), view.errors(chosen) if view.has_errors else {}
    fitted = view.fitted()
    tables = [
        _extremes(frame[factor], errors[name][factor] if errors else None, fitted.get(name), n_genes, by).assign(
            factor=factor, modality=name
        )
        for factor in chosen
        for name, frame in frames.items()
    ]
    index = ["factor", "gene"] if record.ALONE in frames else ["factor", "modality", "gene"]
    columns = [*index, "direction", "rank", "loading", *(["se", "lfsr", "qvalue"] if errors else [])]
    columns += ["fitted"] if fitted else []
    # Also of no factor.
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return found[columns].set_index(index)


def _extremes(
    loadings: pd.Series[float], errors: pd.Series[float] | None, fitted: Mask | None, n_genes: int, by: By
) -> pd.DataFrame:
    """Of one factor in one modality, those that are positive first."""
    values = loadings.to_numpy()
    genes = pd.DataFrame({"gene": loadings.index, "loading": values})
    if fitted is not None:
        genes["fitted"] = fitted
    if errors is not None:
        genes["se"] = errors.to_numpy()
        genes["lfsr"], genes["qvalue"] = assess.signs(values, errors.to_numpy())
    doubt = HALF_INTERVAL * genes["se"].to_numpy() if by == "bound" and "se" in genes else 0
    tables = []
    for direction, sign in (("positive", 1), ("negative", -1)):
        ranked = np.argsort(doubt - sign * values, kind="stable")
        table = genes.iloc[ranked[sign * values[ranked] > 0][:n_genes]]
        tables.append(table.assign(direction=direction, rank=np.arange(1, len(table) + 1)))
    return pd.concat(tables)
