"""Correlation of genes as the model sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae._memory import check_memory
from sc_ldvae.get._per_modality import stacked
from sc_ldvae.inputs import fitted_of, gene_positions_by_modality, obs_of, told_whose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data


@door
def feature_correlation(
    data: Data,
    *,
    genes: Sequence[str] | str | None = None,
    batch: str | float | bool | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
) -> pd.DataFrame:
    """Pearson correlation of the genes' log expression over the cells, without the noise of counting.

    The uncertainty of each cell's latent is part of it. With a linear decoder it is known in closed form: counts are
    not needed, and nothing is sampled. Of a joint fit, genes, proteins and peaks are also correlated with each other,
    over all cells, whatever these lack.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    genes
        Names of fitted genes, of a joint fit of any modality; all by default.
    batch
        Take every cell for one of this batch, so that batches do not make genes correlate; by default each cell is of
        its own batch.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.

    Returns
    -------
    Genes x genes; of a joint fit indexed by modality and gene, modality by modality.

    Raises
    ------
    ValueError
        If there is no such fit, gene or batch.
    MemoryError
        If the frame would not fit into memory. The sentence names the needed bytes.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.feature_correlation(adata, genes=["gene0", "gene1"]).shape
    (2, 2)
    """
    from sc_ldvae.decode import LogProportions, correlation

    shown, stored = fitted_of(data, key, modality)
    views = stored.views
    chosen = gene_positions_by_modality(views, genes)
    n_genes = sum(map(len, chosen.values()))
    check_memory(3 * 8 * n_genes**2, f"The correlation of {n_genes} genes", "Ask for some genes only (genes).")
    # Effects of levels enter linearly: the mean design is the mean over the batches.
    with told_whose(data, shown):
        designs = stored.first.design.matrices(obs_of(shown), stored.first.covariate_settings(batch, None))
    design, state = sum(designs[1:], start=designs[0]) / len(designs), record.state_of(shown, stored)
    cells = [LogProportions.of(view, state, design) for view in views.values()]
    names = stacked({name: pd.DataFrame(index=view.genes[chosen[name]]) for name, view in views.items()}).index
    return pd.DataFrame(correlation(cells, list(chosen.values())), index=names, columns=names)
