"""Real counts out of scanpy's own wheel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from sc_ldvae._arguments import door
from sc_ldvae._quiet import quiet

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@door
def pbmc68k_counts() -> AnnData:
    """Raw counts of 700 peripheral blood mononuclear cells and 765 genes, with their cell types.

    Scanpy ships this subset of the 10x Genomics 68k set (Zheng et al. 2017) log-normalised to 10,000 counts per cell of
    all genes. Undoing that gives the integer counts back.

    Returns
    -------
    Counts in `X` (float32, CSR); cell type in ``obs['bulk_labels']``, total counts over all genes of the experiment in
    ``obs['n_counts']``, cell cycle phase in ``obs['phase']``.

    Examples
    --------
    >>> import sc_ldvae
    >>> sc_ldvae.datasets.pbmc68k_counts().shape
    (700, 765)
    """
    import scanpy as sc

    # Scanpy ships an old file format, of which anndata warns.
    with quiet():
        reduced = sc.datasets.pbmc68k_reduced()
    obs = reduced.obs[["bulk_labels", "n_counts", "phase"]].copy()
    raw = reduced.raw[:, reduced.var_names]
    counts = _undo_log_normalisation(raw.X.tocsr(), obs["n_counts"].to_numpy())
    var = reduced.var[[]].rename_axis(None)
    return AnnData(counts, obs=obs.rename_axis(None), var=var)


def _undo_log_normalisation(log: csr_matrix, n_counts: np.ndarray) -> csr_matrix:
    counts = log.astype(np.float64)
    counts.data = np.rint(np.expm1(counts.data) * np.repeat(n_counts / 1e4, np.diff(counts.indptr)))
    counts.eliminate_zeros()
    return counts.astype(np.float32)
