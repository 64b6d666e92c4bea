"""Loadings for genes outside of a fit."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data, Floats, Positions
    from sc_ldvae.assess import Regression

# So many evenly spaced training cells say what a gene's loadings are.
_CELLS = 20_000
_log = logging.getLogger("sc_ldvae")


@door
def extend(
    data: Data,
    genes: Sequence[str] | str | None = None,
    *,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: inputs.Layer = UNSET,
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Give loadings to genes that were not fitted.

    Given the latent, the decoder is one regression for each gene. So what the factors do to a gene that was left out of
    the fit is found from its counts alone: with the likelihood of the model, the library and the log normaliser of the
    fit as offset, its covariates, and for each factor a normal prior as wide as the loadings of the fitted genes are.
    The mode of the posterior is the loading, its curvature gives the standard error. Nothing of the fit changes.

    Loadings are in the frame of the fitted genes: relative to their average. Expression proportions of other genes are
    of the total of the fitted ones. With few counts the prior has its say: such loadings are near zero, with errors
    as wide as the prior.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with a fitted `modality`.
    genes
        Names of genes outside of the fit; all that have counts by default.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData, also one of a joint fit.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    copy
        Return a changed copy and leave `data` as it is.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. ``varm['ldvae_loadings']`` and ``varm['ldvae_loadings_se']`` get the rows of these genes, and
    ``uns['ldvae']['others']`` their names, loadings, intercept, covariate effects and covariances. Then
    :func:`sc_ldvae.get.loadings`, the plots of loadings, :func:`enrichment`, :func:`differential_expression` and
    :func:`normalized_expression` know them; what draws or scores counts knows those of the fit alone. Of the training
    cells at most 20,000 evenly spaced ones are read; genes without counts in them get no loadings.

    Raises
    ------
    ValueError
        If there is no such fit, if a gene is unknown, was fitted, or has no counts, or if counts are missing. `data` is
        not changed.

    See Also
    --------
    sc_ldvae.get.loadings : The loadings of all genes, or of the fitted ones alone (``genes='fitted'``).

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> adata.var["highly_variable"] = [True] * 40 + [False] * 10
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.extend(adata, progress=False)
    >>> sc_ldvae.get.loadings(adata).shape, sc_ldvae.get.loadings(adata, genes="fitted").shape
    ((50, 3), (40, 3))
    """
    from tqdm import tqdm

    from sc_ldvae import assess
    from sc_ldvae.counts import evenly

    adata = inputs.pick_modality(data, modality)
    stored = record.read(adata, key)
    chosen = inputs.other_genes(adata, stored, genes)
    source = inputs.counts_of_others(adata, stored, inputs.layer_of(layer), chosen)
    state, training = record.state_of(adata, stored), ~record.held_out(adata, stored)
    cells = evenly(np.flatnonzero(training if training.any() else ~training), _CELLS)
    with inputs.told_whose(data, adata):
        covariates = stored.design.matrix(inputs.obs_of(adata))[cells]
    known = assess.Known.of(stored.decoder, state.latent[cells], covariates, state.library[cells], stored.design.blocks)
    counts = source.rows(cells).tocsc()
    counted = counts.getnnz(0) > 0
    _check_counted(adata.var_names[chosen[~counted]], every=genes is None, any_counted=bool(counted.any()))
    with tqdm(total=int(counted.sum()), unit="gene", disable=not progress) as bar:
        found = assess.regressed(stored.decoder.likelihood, counts[:, counted], known, bar)
    names = adata.var_names[chosen[counted]].to_numpy().astype(np.str_)
    log_proportion, covariance = _shown(found, known.factors, stored)
    result: Any = inputs.copied(data) if copy else data
    record.write_others(result, modality, stored, names, log_proportion, covariance)
    return result if copy else None


def _check_counted(without: Sequence[str], *, every: bool, any_counted: bool) -> None:
    """Genes without counts: left out of all, refused where they are named."""
    if not len(without):
        return
    what = f"{len(without)} genes outside of the fit have no counts in its training cells (for example {without[0]!r})"
    if every and any_counted:
        _log.info("%s: they get no loadings.", what)
        return
    msg = f"{what}: nothing is known of their loadings. Leave them out."
    raise ValueError(msg)


def _shown(found: Regression, factors: Positions, stored: record.Record) -> tuple[record.AffineMap, Floats]:
    """What was found, in the frame in which the factors are shown; nothing for those that have vanished."""
    n_genes, n_left, k = len(found.coefficients), len(factors), stored.n_latent
    loadings, covariance = np.zeros((n_genes, k)), np.zeros((n_genes, k, k))
    loadings[:, factors] = found.coefficients[:, :n_left]
    covariance[:, factors[:, None], factors] = found.covariance[:, :n_left, :n_left]
    log_proportion = record.AffineMap(loadings, found.coefficients[:, -1], found.coefficients[:, n_left:-1])
    if stored.rotation is None:
        return log_proportion, covariance
    return log_proportion.rotated(np.linalg.inv(stored.rotation).T), record.turned(covariance, stored.rotation)
