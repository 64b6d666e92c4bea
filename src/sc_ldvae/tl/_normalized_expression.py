"""Expression as the decoder sees it: denoised, batch-corrected, with factors kept, dropped or set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sc_ldvae import record
from sc_ldvae._memory import check_memory
from sc_ldvae._modality import obs_of, pick_modality

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Bar, Data, Floats, Positions, Seed
    from sc_ldvae.tl._settings import Covariates, Factors

_ADVICE = "Ask for some genes only (genes), for small values to be left out (threshold), or for fewer cells."


def normalized_expression(
    data: Data,
    *,
    genes: Sequence[str] | str | None = None,
    batch: str | None = None,
    covariates: Covariates | None = None,
    factors: Factors | None = None,
    library: float | Literal["own"] = 1.0,
    n_samples: int | None = None,
    threshold: float | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    rng: Seed = 0,
    key_added: str | None = None,
    progress: bool = True,
) -> pd.DataFrame | csr_matrix | None:
    """Expression proportions by the decoder: denoised, and on request corrected, ablated or steered.

    Computed from the stored latent: counts are not needed.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    genes
        Names of fitted genes; all by default.
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
        mean of its counts.
    n_samples
        Mean over so many draws from each cell's posterior; by default the posterior mean of the latent is decoded.
    threshold
        Leave out values below it: the result is sparse. By default it is dense.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    rng
        Seed or generator of the draws.
    key_added
        Layer to put the result into, with zeros for genes that are not asked for or were not fitted.
    progress
        Show a progress bar.

    Returns
    -------
    n_obs x genes, in single precision: a frame, or with `threshold` a sparse matrix whose columns are `genes` (by
    default ``uns['ldvae']['genes']``). With `key_added` None, and ``layers[key_added]`` is n_obs x n_vars.

    Raises
    ------
    ValueError
        If there is no such fit, or if genes, levels or factors are asked for that it does not know. `data` is not
        changed.
    MemoryError
        If the result would not fit into memory. The sentence names the needed bytes.

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

    from sc_ldvae.tl import _arguments as door
    from sc_ldvae.tl import _settings as settings

    door.check_whole(n_samples=n_samples)
    door.check_key(key_added)
    _check_library(library)
    adata = pick_modality(data, modality)
    fit = record.read(adata, key)
    chosen, places, width = settings.gene_columns(adata, fit, genes, as_layer=key_added is not None)
    asked = _Asked(
        adata,
        fit,
        record.state_of(adata, fit),
        fit.covariate_settings(batch, covariates),
        settings.factor_values(fit, factors),
        library,
        n_samples,
        np.random.default_rng(rng),
    )
    with tqdm(total=adata.n_obs, unit="cell", disable=not progress) as bar:
        if threshold is None:
            values = asked.dense(chosen, places, width, bar)
        else:
            values = asked.sparse(chosen, places, width, threshold, bar)
    if key_added is not None:
        record.write(adata, {"layers": {key_added: values}})
        return None
    if threshold is not None:
        return values
    return pd.DataFrame(values, index=adata.obs_names, columns=fit.genes[chosen])


@dataclass(frozen=True)
class _Asked:
    """A request, and what answers it chunk by chunk."""

    adata: AnnData
    fit: record.Record
    state: record.State
    settings: Mapping[str, str | float]
    factor_values: Mapping[int, float]
    library: float | str
    n_samples: int | None
    rng: np.random.Generator

    def dense(self, genes: Positions, places: Positions, width: int, bar: Bar) -> Floats:
        n_bytes = len(self.state) * width * 4
        check_memory(n_bytes, f"A dense array of {len(self.state)} cells x {width} genes", _ADVICE)
        values = np.zeros((len(self.state), width), dtype=np.float32)
        for cells in self._chunks(bar):
            self._add(cells, genes, places, values[cells])
        return values

    def sparse(self, genes: Positions, places: Positions, width: int, threshold: float, bar: Bar) -> csr_matrix:
        parts = []
        # Decoded in the order of the columns, so that the rows come out sorted.
        order = np.argsort(places)
        for cells in self._chunks(bar):
            values = np.zeros((cells.stop - cells.start, len(genes)), dtype=np.float32)
            self._add(cells, genes[order], np.arange(len(genes)), values)
            values[values < threshold] = 0
            part = sparse.csr_matrix(values)
            columns = places[order].astype(np.int32)[part.indices]
            parts.append(sparse.csr_matrix((part.data, columns, part.indptr), shape=(len(values), width)))
            if len(parts) == 1:
                n_bytes = part.nnz * 16 * len(self.state) // len(values)
                check_memory(n_bytes, f"A sparse matrix of {len(self.state)} cells x {len(genes)} genes", _ADVICE)
        return sparse.vstack(parts, format="csr")

    def _chunks(self, bar: Bar) -> Iterator[slice]:
        from sc_ldvae.decode import CHUNK

        for start in range(0, len(self.state), CHUNK):
            cells = slice(start, min(start + CHUNK, len(self.state)))
            yield cells
            bar.update(cells.stop - cells.start)

    def _add(self, cells: slice, genes: Positions, places: Positions, out: Floats) -> None:
        from sc_ldvae.decode import Expression, draw_latent, with_factors

        state, composition = self.state.rows(cells), self.fit.param("latent_distribution") == "ln"
        latents = [state.latent]
        if self.n_samples is not None:
            latents = [draw_latent(state, self.rng, composition=composition) for _ in range(self.n_samples)]
        latents = [
            with_factors(latent, self.factor_values, composition=composition, rotation=self.fit.rotation)
            for latent in latents
        ]
        designs = self.fit.design.matrices(obs_of(self.adata).iloc[cells], self.settings)
        scale = state.library if self.library == "own" else np.full(len(state), self.library, dtype=np.float32)
        Expression(self.fit.decoder.log_proportion, genes, places).add(latents, designs, scale, out)


def _check_library(library: float | str) -> None:
    if library != "own" and (isinstance(library, str) or not 0 < library < np.inf):
        msg = f"library must be a number above 0 or 'own', but is {library!r}."
        raise ValueError(msg)
