"""Frames out of a fitted AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae.get._per_modality import objects_of, stacked
from sc_ldvae.get._symbols import renamed, symbols_of
from sc_ldvae.inputs import fitted_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sc_ldvae._typing import Data, Floats

# Variance over the cells of the posterior mean of a factor that is in use.
_LEAST_VARIANCE = 0.01


@door
def factors(data: Data, *, key: str = record.DEFAULT, modality: str | None = None) -> pd.DataFrame:
    """What each factor explains and how it is distributed over the cells: a table with a row for each factor.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.

    Returns
    -------
    One row per factor, with `explained_deviance` (the factor's share, on held-out cells; the shares add up to what all
    factors together explain, and fits of formats before 8 hold what is lost without the factor), `mean` and `sd` of the
    latent over the cells that have one, `posterior_sd` (root mean posterior variance; near 1 for a factor that the data
    do not use), `vanished` (whether the cells did not support the factor: its loadings and its latent are zero), and
    `unused` (whether the variance of the latent over the cells is below 0.01 [BurdaUnits16]_; for
    ``latent_distribution='ln'``, of whose latent only the softmax is stored, whether the mean posterior variance is
    above 0.99). Where the loadings had an adaptive prior there is `prior_scale`, its standard deviation for each factor
    when the factor was kept, 0 for those that were not; no rotation has it, and a joint fit has one in each modality.
    ``attrs['total_explained_deviance']`` is that of the whole model.

    Raises
    ------
    ValueError
        If there is no such fit.

    See Also
    --------
    latent : The factors themselves: their value in each cell.

    References
    ----------
    .. [BurdaUnits16] Burda, Grosse, Salakhutdinov (2016). Importance weighted autoencoders. ICLR (active units).

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.factors(adata).index.tolist()
    ['ldvae1', 'ldvae2', 'ldvae3']
    """
    shown, stored = fitted_of(data, key, modality)
    latent, variance = record.shown_latent(shown, stored), record.shown_variance(shown, stored)
    known = np.isfinite(np.column_stack([latent, variance])).all(1)
    if not known.any():
        # Of no cell nothing is known; what is stored of the factors is.
        latent = variance = np.full((1, stored.n_latent), np.nan)
        known = np.ones(1, dtype=np.bool_)
    latent, posterior_variance = latent[known], variance[known].mean(0)
    # Under the prior the two sum to 1.
    used = 1 - posterior_variance if stored.composition else latent.var(0)
    frame = pd.DataFrame(
        {
            "explained_deviance": stored.explained_deviance,
            "mean": latent.mean(0),
            "sd": latent.std(0),
            "posterior_sd": np.sqrt(posterior_variance),
            "vanished": stored.vanished,
            "unused": used < _LEAST_VARIANCE,
        },
        index=pd.Index(stored.factor_names, name="factor"),
    )
    if isinstance(stored, record.Record) and stored.prior_scale is not None:
        frame["prior_scale"] = stored.prior_scale
    frame.attrs["total_explained_deviance"] = stored.total_explained_deviance
    return frame


@door
def history(data: Data, *, key: str = record.DEFAULT, modality: str | None = None) -> pd.DataFrame:
    """Course of the training.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.

    Returns
    -------
    One row per epoch, or where epochs are long and few per part of one, with `elbo` (mean per training cell, in nats,
    at KL weight 1), `elbo_held_out` (of held-out cells, if there are any), `kl_weight` and `lr`.
    ``attrs['stop_reason']`` says why training stopped and ``attrs['best_epoch']`` which epoch's state was kept.

    Raises
    ------
    ValueError
        If there is no such fit.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.get.history(adata).columns.tolist()
    ['elbo', 'elbo_held_out', 'kl_weight', 'lr']
    """
    _, stored = fitted_of(data, key, modality)
    # Modalities that were fitted together have one training.
    of_any = stored.first
    columns = of_any.history
    order = ["epoch", *(name for name in ("elbo", "elbo_held_out", "kl_weight", "lr") if name in columns)]
    frame = pd.DataFrame(columns)[order].set_index("epoch")
    frame.attrs |= of_any.end
    return frame


@door
def covariate_effects(
    data: Data, *, key: str = record.DEFAULT, modality: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Effects of batches and covariates on the genes.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in :func:`loadings`.

    Returns
    -------
    Fitted genes (of a joint fit (modality, gene)) x (covariate, level), in the unit of the loadings: effect on the log
    expression proportion of each level of a categorical covariate (relative to the mean over its levels), or of one
    standard deviation of a continuous one (whose level is empty). Without covariates there are no columns.

    Raises
    ------
    ValueError
        If there is no such fit or column.

    See Also
    --------
    covariate_effects_se : Standard errors of the same numbers.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, batch_key="batch", max_epochs=2, progress=False)
    >>> sc_ldvae.get.covariate_effects(adata).columns.tolist()
    [('batch', 'batch0'), ('batch', 'batch1')]
    """
    return _of_covariates(data, key, modality, gene_symbols, lambda view: view.decoder.log_proportion.covariate_effects)


@door
def covariate_effects_se(
    data: Data, *, key: str = record.DEFAULT, modality: str | None = None, gene_symbols: str | None = None
) -> pd.DataFrame:
    """Standard errors of the effects of batches and covariates.

    As those of the loadings they are of a regression of each gene on the latent, here with the prior that the effects
    have in a fit with ``loadings_prior='adaptive'``.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality` or a joint fit.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them.
    gene_symbols
        Column of `var` with the names to show, as in :func:`loadings`.

    Returns
    -------
    Standard error of each effect, as :func:`covariate_effects` gives them.

    Raises
    ------
    ValueError
        If there is no such fit or column, or if an older version wrote the fit, without errors of its effects.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, batch_key="batch", max_epochs=2, progress=False)
    >>> sc_ldvae.get.covariate_effects_se(adata).shape
    (50, 2)
    """

    def errors_of(stored: record.Record) -> Floats:
        if stored.covariate_effects_se is None:
            msg = (
                f"uns[{key!r}] has no errors of its covariate effects, as it was written by an older version. "
                "Fit again."
            )
            raise ValueError(msg)
        return stored.covariate_effects_se

    return _of_covariates(data, key, modality, gene_symbols, errors_of)


def _of_covariates(
    data: Data,
    key: str,
    modality: str | None,
    gene_symbols: str | None,
    values_of: Callable[[record.Record], Floats],
) -> pd.DataFrame:
    """Genes of all modalities x columns of the design."""
    shown, stored = fitted_of(data, key, modality)
    symbols, columns = symbols_of(objects_of(shown, stored), gene_symbols), stored.first.design.columns
    pairs = [[name for name, _ in columns], [level for _, level in columns]]
    names = pd.MultiIndex.from_arrays(pairs, names=["covariate", "level"])
    frames = {
        name: pd.DataFrame(np.array(values_of(view)), renamed(pd.Index(view.genes), symbols.get(name, {})), names)
        for name, view in stored.views.items()
    }
    return stacked(frames)
