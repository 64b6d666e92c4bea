"""The kernels' machine code, compiled once for all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from sc_ldvae import datasets
from sc_ldvae._arguments import door
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.tl._differential_expression import differential_expression
from sc_ldvae.tl._extend import extend
from sc_ldvae.tl._ldvae import ldvae
from sc_ldvae.tl._normalized_expression import normalized_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from sc_ldvae._options import Dispersion
    from sc_ldvae.likelihoods import GeneLikelihood

# Enough steps for the adaptive prior, too short ones to diverge on so few counts.
_TRAINING: dict[str, Any] = {"max_epochs": 300, "lr": 1e-3, "progress": False}


@door
def compile_kernels(*, gene_likelihood: GeneLikelihood | None = None, progress: bool = True) -> None:
    """Compile the kernels of fits and tools now, and keep their machine code on disk.

    Otherwise each is compiled by the first call that needs it, once per machine. Where calls can't keep it, as in an
    image that is read-only or on a cluster whose nodes start empty, let whoever installs the package call this once, on
    the kind of processor that is to run it: ``python -m sc_ldvae compile`` is the same. The code goes where numba keeps
    such things: to the folder in NUMBA_CACHE_DIR, beside the package, or, where nothing can be written there, to one of
    the user.

    Parameters
    ----------
    gene_likelihood
        Likelihood that is to be used; None for all of them.
    progress
        Show a progress bar.

    Returns
    -------
    None. What can't be kept on disk is compiled all the same, and a sentence in the log says so.

    Examples
    --------
    >>> import sc_ldvae
    >>> sc_ldvae.tl.compile_kernels(gene_likelihood="poisson", progress=False)
    """
    names: list[Any] = list(LIKELIHOODS) if gene_likelihood is None else [gene_likelihood]
    works: list[Callable[[], object]] = [
        *(work for name in names for work in _works(name)),
        partial(_fit_together, names[0]),
    ]
    for work in tqdm(works, desc="Compiling kernels", disable=not progress):
        work()


def _works(gene_likelihood: GeneLikelihood) -> Iterator[Callable[[], object]]:
    """What calls every kernel of a likelihood, in parts."""
    yield partial(_fit_and_use, gene_likelihood)
    if any(part.depends_on == "dispersion" for part in LIKELIHOODS[gene_likelihood].parts):
        yield partial(_fitted, gene_likelihood, dispersion="gene-cell")


def _fit_and_use(gene_likelihood: GeneLikelihood) -> None:
    adata = _fitted(gene_likelihood)
    for genes in (None, list(adata.var_names[2:4])):
        normalized_expression(adata, genes=genes, progress=False)
    if LIKELIHOODS[gene_likelihood].has_library:
        differential_expression(adata, "group", progress=False)
    extend(adata, progress=False)


def _fit_together(gene_likelihood: GeneLikelihood) -> None:
    from mudata import MuData

    modalities = {name: _counts(gene_likelihood) for name in ("one", "other")}
    modalities["other"].var_names = [f"other {name}" for name in modalities["other"].var_names]
    ldvae(MuData(modalities), 2, modalities=dict.fromkeys(modalities, gene_likelihood), **_TRAINING)


def _fitted(gene_likelihood: GeneLikelihood, dispersion: Dispersion = "gene") -> AnnData:
    adata = _counts(gene_likelihood)
    ldvae(adata, 2, gene_likelihood=gene_likelihood, dispersion=dispersion, **_TRAINING)
    return adata


def _counts(gene_likelihood: GeneLikelihood) -> AnnData:
    adata = datasets.simulate(100, 20, 2, mean_library=20, gene_likelihood=gene_likelihood, rng=0)
    adata.obs["group"] = ["a", "b"] * (adata.n_obs // 2)
    # Not all are fitted: the others are for `extend`.
    adata.var["highly_variable"] = np.arange(adata.n_vars) > 1
    return adata
