"""Expression as the decoder sees it: denoised, batch-corrected, with factors kept, dropped or set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Data, Floats, Seed

# Single precision holds it, and one by it.
_LARGEST = 1e30


@door
def normalized_expression(
    data: Data,
    *,
    genes: Sequence[str] | str | None = None,
    batch: str | float | bool | None = None,
    covariates: inputs.Covariates | None = None,
    factors: inputs.Factors | None = None,
    library: float | Literal["own"] = 1.0,
    n_samples: int | None = None,
    threshold: float | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    rng: Seed = 0,
    key_added: str | None = None,
    path: str | PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame | csr_matrix | None:
    """Expression proportions by the decoder: denoised, and on request corrected, ablated or steered.

    Computed from the stored latent: counts are not needed. Of proteins (``gene_likelihood='nb_background'``) it is the
    foreground, in counts: what is left of their means without the background.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    genes
        Names of genes with loadings: fitted ones, or others to which :func:`extend` gave some; all by default.
        Proportions are of the total of the fitted genes.
    batch
        Decode every cell as if it were of this batch; ``'mean'`` takes the mean over all batches of the fit, which is
        batch correction. By default each cell is of its own batch.
    covariates
        The same for other covariates: a level, ``'mean'`` (over the levels), or a number in the unit of the column.
    factors
        A sequence of factors (numbers from 1 or names) to keep: all others are dropped. Or a mapping of factors to
        change: to a number, which the factor gets in every cell, or to None, which drops it. A dropped factor is 0, its
        mean under the prior; with ``latent_distribution='ln'`` the others then share what is left.
    library
        What the proportions of a cell are multiplied by: a number, such as 1e4; or ``'own'``, its library, for the
        mean of its counts (with ``gene_likelihood='bernoulli'``, before only ones are left of them). Not for
        ``'nb_background'``, which has none.
    n_samples
        Mean over so many draws from each cell's posterior; by default the posterior mean of the latent is decoded.
    threshold
        Leave out values below it: the result is sparse. By default it is dense.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData. One of a joint fit is decoded for all cells of the MuData, those that lack it (or lack it
        in the whole object, after :func:`project`) among them; `key_added` names a layer, which has its own cells only.
    rng
        Seed or generator of the draws.
    key_added
        Layer to put the result into, with NaN for genes that are not asked for or have no loadings: nobody has computed
        those. With `threshold`, whose layer would not be sparse then, they are left out like small values. Plots of
        scanpy leave the place of such a gene empty, or its cells grey. But beside one ``dotplot`` and
        ``stacked_violin`` have no colours without `vmin` and `vmax`, ``standard_scale='var'`` takes it for lowest, and
        :func:`scanpy.pp.pca` refuses it: name fitted genes there, or take ``adata[:, adata.uns['ldvae']['genes']]``.
    path
        New ``.h5ad`` or ``.zarr`` file to write the result to, some cells after the others, for what does not fit into
        memory: an AnnData whose X is the expression, with obs, obsm and var of `data`.
    progress
        Show a progress bar.

    Returns
    -------
    n_obs x genes, in single precision: a frame, or with `threshold` a sparse matrix whose columns are `genes` (by
    default the fitted ones, as ``uns['ldvae']['genes']`` names them, and after them the others). With `key_added` None,
    and ``layers[key_added]`` is n_obs x n_vars; with `path` None, and the file's X is n_obs x genes.

    Raises
    ------
    ValueError
        If there is no such fit, if genes, levels or factors are asked for that it does not know, or if the file is
        there already. `data` is not changed.
    MemoryError
        If the result would not fit into memory. The sentence names the needed bytes.
    OSError
        If there is no room for the file.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, batch_key="batch", max_epochs=2, progress=False)
    >>> sc_ldvae.tl.normalized_expression(adata, genes=["gene0", "gene1"], batch="mean", progress=False).shape
    (200, 2)
    >>> sc_ldvae.tl.normalized_expression(adata, factors={3: None}, key_added="without_3", progress=False)
    >>> adata.layers["without_3"].shape
    (200, 50)
    """
    from tqdm import tqdm

    from sc_ldvae import decode

    inputs.check_whole(n_samples=n_samples)
    inputs.check_key(key_added)
    file = inputs.new_file(path, key_added)
    _check_numbers(library, threshold)
    as_layer = key_added is not None
    adata, stored, state = inputs.to_decode(data, key, modality, as_layer=as_layer)
    if library != 1 and not stored.has_library:
        msg = (
            f"library={library!r} was given, but gene_likelihood={stored.options.gene_likelihood!r} has none: its "
            "expression is in counts. Leave it out."
        )
        raise ValueError(msg)
    columns = inputs.gene_columns(adata, stored, genes, as_layer=as_layer, others=True)
    settings = stored.covariate_settings(batch, covariates)
    obs = inputs.obs_of(adata)

    def designs(cells: slice) -> Sequence[Floats]:
        with inputs.told_whose(data, adata):
            return stored.design.matrices(obs.iloc[cells], settings)

    scale = state.library if library == "own" else np.full(len(state), library, dtype=np.float32)
    values_of_factors, generator = inputs.factor_values(stored, factors), np.random.default_rng(rng)
    asked = decode.Normalized(stored, state, designs, values_of_factors, scale, n_samples, generator)
    with tqdm(total=adata.n_obs, unit="cell", disable=not progress) as bar:
        if file is not None:
            record.write_matrix(file, adata, stored.known_genes[columns.genes], asked.blocks(columns, threshold, bar))
            return None
        values = asked.dense(columns, bar) if threshold is None else asked.sparse(columns, threshold, bar)
    if key_added is not None:
        record.write(adata, {"layers": {key_added: values}})
        return None
    if threshold is not None:
        return values
    return pd.DataFrame(values, index=adata.obs_names, columns=stored.known_genes[columns.genes])


def _check_numbers(library: float | str, threshold: float | None) -> None:
    if library != "own" and (isinstance(library, str) or not 1 / _LARGEST <= library <= _LARGEST):
        msg = f"library must be a number from {1 / _LARGEST:g} to {_LARGEST:g} or 'own', but is {library!r}."
        raise ValueError(msg)
    if threshold is not None and not abs(threshold) <= _LARGEST:
        msg = f"threshold must be a number up to {_LARGEST:g}, but is {threshold!r}."
        raise ValueError(msg)
