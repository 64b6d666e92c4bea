"""Correlation of genes as the model sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae._memory import check_memory
from sc_ldvae.inputs import gene_positions, obs_of, pick_modality

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
    not needed, and nothing is sampled.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    genes
        Names of fitted genes; all by default.
    batch
        Take every cell for one of this batch, so that batches do not make genes correlate; by default each cell is of
        its own batch.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    Genes x genes.

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

    adata = pick_modality(data, modality)
    stored = record.read(adata, key)
    chosen = gene_positions(stored, genes)
    n_bytes, what = 3 * 8 * len(chosen) ** 2, f"The correlation of {len(chosen)} genes"
    check_memory(n_bytes, what, "Ask for some genes only (genes).")
    # Effects of levels enter linearly: the mean design is the mean over the batches.
    designs = stored.design.matrices(obs_of(adata), stored.covariate_settings(batch, None))
    design = sum(designs[1:], start=designs[0]) / len(designs)
    cells = LogProportions.of(stored, record.state_of(adata, stored), design)
    names = stored.genes[chosen]
    return pd.DataFrame(correlation(cells, chosen), index=names, columns=names)
