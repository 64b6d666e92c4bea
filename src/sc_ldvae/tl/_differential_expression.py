"""Differential expression between groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Data, Floats
    from sc_ldvae.decode import Mode

# The comparison counts in steps of it: it takes memory that grows as it falls.
_LEAST_DELTA = 0.001
# Default pseudocount, in counts of a cell of median library; of expression in counts, where there is no library.
_PSEUDOCOUNT, _PSEUDOCOUNT_WITHOUT_LIBRARY = 0.1, 1.0
# For the vanilla mode, which asks for the order alone: far below the proportion of any expressed gene.
_NO_PSEUDOCOUNT = 1e-9


@door
def differential_expression(
    data: Data,
    groupby: str,
    *,
    groups: Literal["all"] | Iterable[str | float] = "all",
    reference: str | float | bool = "rest",
    mode: Mode = "change",
    delta: float = 0.25,
    fdr: float = 0.05,
    pseudocount: float | None = None,
    batch_correction: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    key_added: str = "rank_genes_groups",
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Rank the genes for characterising groups of cells, by the model's posterior.

    For a pair of cells, one of the group and one of the reference, the log2 fold change of a gene has a distribution
    under the posterior of their latents. Averaged over all pairs, it says how probable a change is
    [Lopez18]_ [Boyeau19]_. With a linear decoder it is known in closed form, so nothing is sampled: the result has no
    Monte Carlo error and needs no seed. Counts are not needed.

    The result is stored in the layout of :func:`scanpy.tl.rank_genes_groups`: :func:`scanpy.get.rank_genes_groups_df`
    and the plots ``sc.pl.rank_genes_groups*`` take it as it is. Genes without loadings were not compared, and have no
    rows (:func:`extend` gives them some). The plots with `values_to_plot` want rows of all genes of their object: give
    them the genes with loadings alone, ``sc.pl.rank_genes_groups_dotplot(adata[:, sc_ldvae.get.loadings(adata).index],
    values_to_plot='logfoldchanges')``.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    groupby
        Column of `obs` with the groups; of a modality also one that only the MuData has. Cells without a group are left
        out.
    groups
        Groups to characterise.
    reference
        Group to compare with; ``'rest'`` for all other cells.
    mode
        ``'change'``: a gene differs if its fold change is at least `delta` in one direction. ``'vanilla'``: if it is
        higher, or lower, at all.
    delta
        Threshold of the absolute log2 fold change.
    fdr
        Expected share of false calls among the genes that are called different (`is_de`).
    pseudocount
        Added to the expression proportions, so that changes among genes that are not expressed count little; by default
        a tenth of a count in a cell of median library. ``'vanilla'`` has none. Fits with
        ``gene_likelihood='nb_background'`` compare foregrounds, to which one count is added.
    batch_correction
        Compare as if all cells were of the same batch, for each batch of the fit, and take the mean. Otherwise each
        cell is of its own batch.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    key_added
        Name of the result in `uns`.
    copy
        Return a changed copy and leave `data` as it is.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. ``uns[key_added]`` gets `params` and, for each group, the genes of `data` with loadings,
    ordered by score:

    `names`, `scores`
        Genes, and natural log of the odds that a gene is higher rather than lower in the group, where half of the
        probability of no difference counts for each. For ``'vanilla'`` this is the Bayes factor.
    `logfoldchanges`, `lfc_sd`
        Mean and standard deviation of the log2 fold change.
    `pvals`, `pvals_adj`
        Probability that the gene is not different, and its mean over the genes at least as surely different: the false
        discovery rate of calling them.
    `proba_de`, `bayes_factor`, `is_de`
        Probability that the gene is different, natural log of its odds, and whether it is called at `fdr`.
    `proportion`, `proportion_reference`
        Mean expression proportion in the group and in the reference (``'nb_background'``: mean foreground, in counts).

    Raises
    ------
    ValueError
        If there is no such fit, column or group, or a group has fewer than two cells. `data` is not changed.

    See Also
    --------
    sc_ldvae.get.differential_expression : All columns as a frame.

    References
    ----------
    .. [Lopez18] Lopez, Regier, Cole, Jordan, Yosef (2018). Deep generative modeling for single-cell transcriptomics.
       Nature Methods 15:1053.
    .. [Boyeau19] Boyeau, Lopez, Regier, Gayoso, Jordan, Yosef (2019). Deep generative models for detecting differential
       expression in single cells. bioRxiv 794289. See also Boyeau et al. (2023), PNAS 120:e2209124120.

    Examples
    --------
    >>> import scanpy as sc, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> adata.obs["side"] = ["left", "right"] * 100
    >>> sc_ldvae.tl.differential_expression(adata, "side", progress=False)
    >>> sc.get.rank_genes_groups_df(adata, group="left").shape
    (50, 5)
    """
    from tqdm import tqdm

    from sc_ldvae import decode

    inputs.check_key(key_added)
    _check_numbers(mode, delta, fdr, pseudocount)
    adata = inputs.pick_modality(data, modality)
    stored = record.read(adata, key)
    codes, names = inputs.grouped(data, modality, groupby)
    with inputs.told_whose(data, adata, and_all=True):
        chosen, tests = inputs.tests_of(codes, names, groupby, groups, reference)
    genes = np.flatnonzero(inputs.known_places(adata, stored) >= 0)
    known = codes >= 0
    cells = adata[known]
    state = record.state_of(cells, stored)
    if mode == "vanilla":
        pseudocount = _NO_PSEUDOCOUNT
    elif pseudocount is None and not stored.has_library:
        pseudocount = _PSEUDOCOUNT_WITHOUT_LIBRARY
    elif pseudocount is None:
        pseudocount = _PSEUDOCOUNT / float(np.median(state.library))
    with inputs.told_whose(data, adata):
        designs = _designs(cells, stored, batch_correction=batch_correction)
    compared = decode.Compared(codes[known], tests)
    with tqdm(total=len(genes) * len(designs), unit="gene", disable=not progress) as bar:
        comparison = decode.mean_comparison(
            stored, state, designs, compared, genes, bar, delta=delta, pseudocount=pseudocount
        )
    params = {
        "groupby": groupby,
        "reference": reference,
        "method": "ldvae",
        "use_raw": False,
        "key": key,
        "mode": mode,
        "delta": float(delta),
        "fdr": float(fdr),
        "pseudocount": float(pseudocount),
        "batch_correction": bool(batch_correction),
    }
    tables = {
        group: decode.ranking(comparison, i, stored.known_genes[genes], mode, fdr) for i, group in enumerate(chosen)
    }

    def write(adata: AnnData) -> None:
        record.write_comparison(adata, key_added, params, tables)

    return inputs.changed(data, modality, write, copy=copy)


def _check_numbers(mode: str, delta: float, fdr: float, pseudocount: float | None) -> None:
    from sc_ldvae.decode import Mode

    if mode not in get_args(Mode):
        msg = f"mode={mode!r} is unknown. Choose 'change' or 'vanilla'."
        raise ValueError(msg)
    if 0 < delta < _LEAST_DELTA:
        msg = f"delta must be at least {_LEAST_DELTA}, but is {delta}: less than anyone could measure."
        raise ValueError(msg)
    for name, number in (("delta", delta), ("pseudocount", pseudocount)):
        if number is not None and not 0 < number < np.inf:
            msg = f"{name} must be above 0, but is {number}."
            raise ValueError(msg)
    if not 0 < fdr < 1:
        msg = f"fdr must be between 0 and 1, but is {fdr}."
        raise ValueError(msg)


def _designs(cells: AnnData, stored: record.Record, *, batch_correction: bool) -> Sequence[Floats]:
    """The cells' covariates as they are, or once for each batch."""
    settings: dict[str, record.Setting] = {}
    if batch_correction:
        if stored.design.batch is None:
            msg = "batch_correction=True was given, but the fit has no batch. Leave it out, or fit with batch_key."
            raise ValueError(msg)
        settings[stored.design.batch.key] = record.MEAN
    return stored.design.matrices(inputs.obs_of(cells), settings)
