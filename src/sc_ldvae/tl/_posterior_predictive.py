"""Counts that the fitted model draws: what the data would look like if the model were true."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sc_ldvae import record
from sc_ldvae._memory import check_memory
from sc_ldvae._modality import obs_of, pick_modality

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from sc_ldvae._typing import Bar, Data, Floats, Positions, Seed
    from sc_ldvae.decode import CountDistribution
    from sc_ldvae.tl._settings import Covariates

_ADVICE = "Ask for fewer draws (n_samples), for some genes only (genes), or for fewer cells."


def posterior_predictive(
    data: Data,
    n_samples: int = 1,
    *,
    genes: Sequence[str] | str | None = None,
    batch: str | None = None,
    covariates: Covariates | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    rng: Seed = 0,
    key_added: str | None = None,
    progress: bool = True,
) -> list[csr_matrix] | None:
    """Draw counts from the fitted model: for a check of the model, or as simulated data that look like the real ones.

    For each cell a latent is drawn from its posterior, and counts from their distribution given this latent and the
    stored library, which is not drawn anew: a cell's total varies around it. Counts are not needed for it.

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
        Modality of a MuData.
    rng
        Seed or generator of the draws.
    key_added
        Layer to put the counts into, with zeros for genes that are not asked for or were not fitted; with more than one
        draw ``f"{key_added}_1"`` and so on. :func:`sc_ldvae.pl.posterior_predictive` looks for
        ``key_added="posterior_predictive"``.
    progress
        Show a progress bar.

    Returns
    -------
    One matrix of counts for each draw: n_obs x genes (by default ``uns['ldvae']['genes']``), sparse, in single
    precision. With `key_added` None, and ``layers[key_added]`` is n_obs x n_vars.

    Raises
    ------
    ValueError
        If there is no such fit, if genes or levels are asked for that it does not know, or the mean over the levels of
        a covariate. `data` is not changed.
    MemoryError
        If the counts would not fit into memory. The sentence names the needed bytes.

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

    from sc_ldvae.decode import CountDistribution
    from sc_ldvae.tl import _arguments as door
    from sc_ldvae.tl import _settings as settings

    door.check_whole(n_samples=n_samples)
    door.check_key(key_added)
    adata = pick_modality(data, modality)
    fit = record.read(adata, key)
    chosen, places, width = settings.gene_columns(adata, fit, genes, as_layer=key_added is not None)
    asked = fit.covariate_settings(batch, covariates)
    cells = _Cells(
        record.state_of(adata, fit),
        _design(adata, fit, asked),
        _theta_groups(adata, fit, asked),
        fit.param("latent_distribution") == "ln",
    )
    counts, rng = CountDistribution.of_genes(fit.decoder, chosen), np.random.default_rng(rng)
    samples = []
    with tqdm(total=adata.n_obs * n_samples, unit="draw", disable=not progress) as bar:
        for n_left in range(n_samples, 0, -1):
            sample = cells.draw(counts, n_left, _Sources.of(rng), bar)
            samples.append(_at_columns(sample, places, width))
    if key_added is None:
        return samples
    names = [key_added] if n_samples == 1 else [f"{key_added}_{i}" for i in range(1, n_samples + 1)]
    record.write(adata, {"layers": dict(zip(names, samples, strict=True))})
    return None


@dataclass(frozen=True)
class _Sources:
    """Randomness of each step of a draw: from one for all, a draw would depend on how many cells are drawn at once."""

    latent: np.random.Generator
    rate: np.random.Generator
    count: np.random.Generator
    inflation: np.random.Generator

    @classmethod
    def of(cls, rng: np.random.Generator) -> _Sources:
        return cls(*map(np.random.default_rng, rng.integers(2**63, size=4)))


@dataclass(frozen=True)
class _Cells:
    """What the counts of cells are drawn from."""

    state: record.State
    design: Floats
    groups: NDArray[np.int64]
    composition: bool

    def draw(self, counts: CountDistribution, n_left: int, sources: _Sources, bar: Bar) -> csr_matrix:
        """Counts, n_obs x genes: the first of `n_left` draws."""
        from sc_ldvae.decode import chunks_of, draw_latent

        parts: list[csr_matrix] = []
        for cells in chunks_of(len(self.state), len(counts.expression.genes)):
            state = self.state.rows(cells)
            latent = draw_latent(state, sources.latent, composition=self.composition)
            parameters = counts.parameters(latent, self.design[cells], state.library, self.groups[cells])
            parts.append(sparse.csr_matrix(_draw_counts(parameters, sources), dtype=np.float32))
            if len(parts) == 1:
                n_bytes = (n_left + 1) * 8 * parts[0].nnz * len(self.state) // len(state)
                what = f"{n_left} sparse matrices of {len(self.state)} cells x {parts[0].shape[1]} genes"
                check_memory(n_bytes, what, _ADVICE)
            bar.update(len(state))
        return sparse.vstack(parts, format="csr")


def _draw_counts(parameters: Mapping[str, Floats], sources: _Sources) -> NDArray[np.int64]:
    rate = parameters["mean"]
    if "theta" in parameters:
        # A negative binomial is a Poisson whose rate has a gamma distribution.
        theta = parameters["theta"]
        rate = rate * (sources.rate.standard_gamma(theta) / theta)
    counts = sources.count.poisson(rate)
    if "zero_inflation" in parameters:
        counts[sources.inflation.random(counts.shape) < parameters["zero_inflation"]] = 0
    return counts


def _design(adata: AnnData, fit: record.Record, asked: Mapping[str, str | float]) -> Floats:
    """Covariates of each cell, n_obs x columns of the design."""
    for column in (fit.design.batch, *fit.design.categorical):
        if column is not None and asked.get(column.key) == "mean" and "mean" not in column.levels:
            argument = "batch" if column is fit.design.batch else f"covariates[{column.key!r}]"
            levels = ", ".join(map(repr, column.levels))
            msg = (
                f"{argument} can't be 'mean': counts are drawn for one level, not for a mean of them. Levels: {levels}."
            )
            raise ValueError(msg)
    (design,) = fit.design.matrices(obs_of(adata), asked)
    return design


def _theta_groups(adata: AnnData, fit: record.Record, asked: Mapping[str, str | float]) -> NDArray[np.int64]:
    """Row of the log theta for each cell: that of the asked batch, where dispersions differ between batches."""
    batch = fit.design.batch
    if fit.param("dispersion") == "gene-batch" and batch is not None and batch.key in asked:
        return np.full(adata.n_obs, batch.levels.index(str(asked[batch.key])))
    return fit.theta_groups(adata)


def _at_columns(counts: csr_matrix, places: Positions, width: int) -> csr_matrix:
    """The same columns at these places among `width` columns."""
    columns = places.astype(counts.indices.dtype)[counts.indices]
    placed = sparse.csr_matrix((counts.data, columns, counts.indptr), shape=(counts.shape[0], width))
    placed.sort_indices()
    return placed
