"""Loadings, as they are stored or in the frame that is asked for, with their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_modality import stacked
from sc_ldvae.get._view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from sc_ldvae import assess
    from sc_ldvae._typing import Data
    from sc_ldvae.get._view import Per, Shown


@door
def loadings(
    data: Data,
    factors: Sequence[int | str] | None = None,
    *,
    rotation: assess.Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    genes: Shown = "all",
) -> pd.DataFrame:
    """Loadings of the genes.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all if None.
    rotation
        Rotate the factors towards loadings of which few are large: ``'varimax'`` (orthogonal) or ``'promax'`` (oblique:
        factors may be correlated), with genes weighted by how well they are measured. Rotated factors come in the order
        of their weighted sum of squared loadings. ``'principal'``: orthogonal loadings of equal size, in the order of
        the scale of the latent. Of a joint fit, ``'modality'`` (orthogonal): factors of as few modalities as possible.
        All modalities of a joint fit turn together, also where one is named. To keep rotated factors in the object,
        with their latent, use :func:`~sc_ldvae.tl.rotate`.
    per
        Effect of one ``'unit'`` of the factor, or of one standard deviation (``'sd'``) of its latent over the cells.
    log2
        Give log2 in place of natural log.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in scanpy. A gene without one keeps its own; genes that share one
        have their own behind it.
    genes
        ``'all'``: the fitted genes, and those that :func:`sc_ldvae.tl.extend` gave loadings. ``'fitted'``: those of the
        fit alone.

    Returns
    -------
    Effect of one unit of each factor on the log expression proportion (natural log), relative to the average fitted
    gene; with ``gene_likelihood='nb_background'`` on the log foreground, relative to nothing: genes x factors; of a
    joint fit (modality, gene) x factors, relative to the average gene of the modality. Genes without loadings, or
    that have left the object, are left out.

    Raises
    ------
    ValueError
        If there is no such fit, factor or column, if `rotation` or `per` is unknown, or if factors that are shares of
        one (``latent_distribution='ln'``) are to be rotated.

    See Also
    --------
    loadings_se : Standard errors of the same numbers.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.loadings(adata).columns.tolist()
    ['ldvae1', 'ldvae2', 'ldvae3']
    >>> sc_ldvae.get.loadings(adata, [1], rotation="varimax", per="sd", log2=True).shape
    (50, 1)

    Of several modalities that were fitted together:

    >>> import mudata
    >>> other = sc_ldvae.datasets.simulate(n_obs=200, n_vars=20, n_latent=3)
    >>> other.var_names = "protein" + other.var_names.str.removeprefix("gene")
    >>> mdata = mudata.MuData({"rna": adata, "prot": other})
    >>> sc_ldvae.tl.ldvae(mdata, 3, modalities=["rna", "prot"], key_added="joint", max_epochs=2, progress=False)
    >>> sc_ldvae.get.loadings(mdata, key="joint").loc["prot"].shape
    (20, 3)
    """
    return stacked(
        View.of(data, rotation, per, key, modality, log2=log2, gene_symbols=gene_symbols, genes=genes).loadings(factors)
    )


@door
def loadings_se(
    data: Data,
    factors: Sequence[int | str] | None = None,
    *,
    rotation: assess.Method | None = None,
    per: Per = "unit",
    log2: bool = False,
    key: str = record.DEFAULT,
    modality: str | None = None,
    gene_symbols: str | None = None,
    genes: Shown = "all",
) -> pd.DataFrame:
    """Standard errors of the loadings.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    factors
        Factors by number from 1 or by name; all if None.
    rotation, per, log2
        As in :func:`loadings`. Rotation and standard deviations are taken as known.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in scanpy. A gene without one keeps its own; genes that share one
        have their own behind it.
    genes
        ``'all'``: the fitted genes, and those that :func:`sc_ldvae.tl.extend` gave loadings. ``'fitted'``: those of the
        fit alone.

    Returns
    -------
    Standard error of each loading, in its unit: genes x factors, as :func:`loadings` gives them.

    Raises
    ------
    ValueError
        As :func:`loadings`, and if the fit has no errors.

    Examples
    --------
    >>> import numpy as np, sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.loadings_se(adata).shape
    (50, 3)
    """
    return stacked(
        View.of(data, rotation, per, key, modality, log2=log2, gene_symbols=gene_symbols, genes=genes).errors(factors)
    )
