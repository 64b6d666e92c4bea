"""Counts that the fitted model draws: what the data would look like if the model were true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    import pandas as pd
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Data, Floats, Seed
    from sc_ldvae.decode import GeneColumns


@door
def posterior_predictive(
    data: Data,
    n_samples: int = 1,
    *,
    genes: Sequence[str] | str | None = None,
    batch: str | float | bool | None = None,
    covariates: inputs.Covariates | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    rng: Seed = 0,
    key_added: str | None = None,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> list[csr_matrix] | None:
    """Draw counts from the fitted model: for a check of the model, or as simulated data that look like the real ones.

    For each cell a latent is drawn from its posterior, and counts from their distribution given this latent and the
    stored library, which is not drawn anew: a cell's total varies around it. Counts are not needed for it.
    With ``gene_likelihood='bernoulli'`` they are zeros and ones.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    n_samples
        Number of draws of all cells.
    genes
        Names of fitted genes; all by default.
    batch
        Draw every cell as if it were of this batch. By default each cell is of its own batch.
    covariates
        The same for other covariates: a level, or a number in the unit of the column (``'mean'`` for the mean of the
        fit).
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData. One of a joint fit is decoded for all cells of the MuData, those that lack it (or lack it
        in the whole object, after :func:`project`) among them; `key_added` names a layer, which has its own cells only.
    rng
        Seed or generator of the draws.
    key_added
        Layer to put the counts into, which is sparse: genes that are not asked for or were not fitted have none there,
        though nobody has drawn them. With more than one draw ``f"{key_added}_1"`` and so on.
        :func:`sc_ldvae.pl.posterior_predictive` looks for ``key_added="posterior_predictive"``.
    path
        New ``.h5ad`` or ``.zarr`` file to write the counts of one draw to, some cells after the others, for what does
        not fit into memory: an AnnData whose X they are, with obs, obsm and var of `data`.
    progress
        Show a progress bar.

    Returns
    -------
    One matrix of counts for each draw: n_obs x genes (by default ``uns['ldvae']['genes']``), sparse, in single
    precision. With `key_added` None, and ``layers[key_added]`` is n_obs x n_vars; with `path` None, and the file's X is
    n_obs x genes.

    Raises
    ------
    ValueError
        If there is no such fit, if genes or levels are asked for that it does not know, or the mean over the levels of
        a covariate, or if the file is there already. `data` is not changed.
    MemoryError
        If the counts would not fit into memory. The sentence names the needed bytes.
    OSError
        If there is no room for the file.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> first, second = sc_ldvae.tl.posterior_predictive(adata, 2, genes=["gene0", "gene1"], progress=False)
    >>> first.shape
    (200, 2)
    >>> sc_ldvae.tl.posterior_predictive(adata, key_added="posterior_predictive", progress=False)
    >>> adata.layers["posterior_predictive"].shape
    (200, 50)
    """
    from tqdm import tqdm

    from sc_ldvae import decode

    inputs.check_whole(n_samples=n_samples)
    inputs.check_key(key_added)
    file = inputs.new_file(path, key_added)
    if file is not None and n_samples > 1:
        msg = f"path was given with n_samples={n_samples}, but a file gets one draw. Call once for each, with its rng."
        raise ValueError(msg)
    as_layer = key_added is not None
    adata, stored, state = inputs.to_decode(data, key, modality, as_layer=as_layer)
    obs, settings = inputs.obs_of(adata), stored.covariate_settings(batch, covariates)
    columns = inputs.gene_columns(adata, stored, genes, as_layer=as_layer)
    with inputs.told_whose(data, adata):
        design, groups = _design(obs, stored, settings), _groups(obs, stored, settings)
    cells = decode.Posteriors(state, design, groups, stored.composition)
    counts, rng = decode.CountDistribution.of_genes(stored.decoder, columns.genes), np.random.default_rng(rng)
    with tqdm(total=adata.n_obs * n_samples, unit="draw", disable=not progress) as bar:
        if file is not None:
            record.write_matrix(file, adata, stored.genes[columns.genes], cells.blocks(counts, rng, bar))
            return None
        drawn = (cells.draw(counts, n_left, rng, bar) for n_left in range(n_samples, 0, -1))
        samples = [_at_columns(one, columns) for one in drawn]
    if key_added is None:
        return samples
    names = [key_added] if n_samples == 1 else [f"{key_added}_{i}" for i in range(1, n_samples + 1)]
    record.write(adata, {"layers": dict(zip(names, samples, strict=True))})
    return None


def _design(obs: pd.DataFrame, stored: record.Record, settings: Mapping[str, str | float]) -> Floats:
    """Covariates of each cell, n_obs x columns of the design."""
    for column in (stored.design.batch, *stored.design.categorical):
        if column is not None and settings.get(column.key) == "mean" and "mean" not in column.levels:
            argument = "batch" if column is stored.design.batch else f"covariates[{column.key!r}]"
            levels = ", ".join(map(repr, column.levels))
            msg = (
                f"{argument} can't be 'mean': counts are drawn for one level, not for a mean of them. Levels: {levels}."
            )
            raise ValueError(msg)
    (design,) = stored.design.matrices(obs, settings)
    return design


def _groups(obs: pd.DataFrame, stored: record.Record, settings: Mapping[str, str | float]) -> NDArray[np.int64]:
    """Group of each cell: the batch that is set, where dispersions differ between batches."""
    batch = stored.design.batch
    if stored.blocks[0].dispersion == "gene-batch" and batch is not None and batch.key in settings:
        return np.full(len(obs), batch.levels.index(str(settings[batch.key])))
    return stored.groups(obs)


def _at_columns(counts: csr_matrix, columns: GeneColumns) -> csr_matrix:
    """The genes at their places."""
    places = columns.places.astype(counts.indices.dtype)[counts.indices]
    placed = sparse.csr_matrix((counts.data, places, counts.indptr), shape=(counts.shape[0], columns.width))
    placed.sort_indices()
    return placed
