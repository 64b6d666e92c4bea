"""Frames out of a fitted AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._modality import pick_modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data, Positions

# Variance over the cells of the posterior mean of a factor that is in use.
_LEAST_VARIANCE = 0.01


def factors(data: Data, *, key: str = record.DEFAULT, modality: str | None = None) -> pd.DataFrame:
    """What each factor explains and how it is distributed over the cells.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    One row per factor, with `explained_deviance` (share of the null's deviance that returns without the factor, on
    held-out cells), `mean` and `sd` of the latent over cells, `posterior_sd` (root mean posterior variance; near 1
    for a factor that the data do not use), and `unused` (whether the variance of the latent over the cells is below
    0.01 [BurdaUnits16]_; for ``latent_distribution='ln'``, of whose latent only the softmax is stored, whether the mean
    posterior variance is above 0.99). ``attrs['total_explained_deviance']`` is the share of all factors together.

    Raises
    ------
    ValueError
        If there is no such fit.

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
    adata = pick_modality(data, modality)
    fit = record.read(adata, key)
    latent = np.asarray(adata.obsm[fit.keys.latent], dtype=np.float64)
    posterior_variance = np.asarray(adata.obsm[fit.keys.variance], dtype=np.float64).mean(0)
    if fit.rotation is not None:
        posterior_variance = posterior_variance @ fit.rotation**2
    # Under the prior the two sum to 1.
    used = 1 - posterior_variance if fit.param("latent_distribution") == "ln" else latent.var(0)
    frame = pd.DataFrame(
        {
            "explained_deviance": np.asarray(fit.content["explained_deviance"]),
            "mean": latent.mean(0),
            "sd": latent.std(0),
            "posterior_sd": np.sqrt(posterior_variance),
            "unused": used < _LEAST_VARIANCE,
        },
        index=pd.Index(fit.factor_names, name="factor"),
    )
    frame.attrs["total_explained_deviance"] = float(fit.content["total_explained_deviance"])
    return frame


def history(data: Data, *, key: str = record.DEFAULT, modality: str | None = None) -> pd.DataFrame:
    """Course of the training.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    One row per epoch, with `elbo` (mean per training cell, in nats, at KL weight 1), `elbo_held_out` (of the held-out
    cells, if there are any), `kl_weight` and `lr`. ``attrs['stop_reason']`` says why training stopped and
    ``attrs['best_epoch']`` which epoch's state was kept.

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
    content = record.read(pick_modality(data, modality), key).content
    columns: dict[str, Any] = {name: np.asarray(values) for name, values in content["history"].items()}
    order = ["epoch", *(name for name in ("elbo", "elbo_held_out", "kl_weight", "lr") if name in columns)]
    frame = pd.DataFrame(columns)[order].set_index("epoch")
    frame.attrs |= {"stop_reason": str(content["stop_reason"]), "best_epoch": int(content["best_epoch"])}
    return frame


def covariate_effects(data: Data, *, key: str = record.DEFAULT, modality: str | None = None) -> pd.DataFrame:
    """Effects of batches and covariates on the genes.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    Fitted genes x (covariate, level), in the unit of the loadings: effect on the log expression proportion of each
    level of a categorical covariate (relative to the mean over its levels), or of one standard deviation of a
    continuous one (whose level is empty). Without covariates there are no columns.

    Raises
    ------
    ValueError
        If there is no such fit.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, batch_key="batch", max_epochs=2, progress=False)
    >>> sc_ldvae.get.covariate_effects(adata).columns.tolist()
    [('batch', 'batch0'), ('batch', 'batch1')]
    """
    fit = record.read(pick_modality(data, modality), key)
    genes = pd.Index(fit.genes)
    names = ["covariate", "level"]
    if "covariates" not in fit.content:
        return pd.DataFrame(index=genes, columns=pd.MultiIndex.from_arrays([[], []], names=names))
    table = fit.content["covariates"]
    columns = pd.MultiIndex.from_arrays([record.strings(table[c]) for c in ("key", "level")], names=names)
    return pd.DataFrame(np.array(fit.content["decoder"]["covariate_effects"]), index=genes, columns=columns)


def factor_positions(fit: record.Record, factors: Sequence[int | str] | None) -> list[int]:
    """Positions from 0 of factors that are named by number from 1 or by name; all of them for None.

    Raises
    ------
    ValueError
        If the fit has no such factor, or one is named twice.
    """
    names = fit.factor_names
    if factors is None:
        return list(range(len(names)))
    known = {name: k for k, name in enumerate(names)} | {k + 1: k for k in range(len(names))}
    unknown = [factor for factor in factors if factor not in known]
    if unknown:
        msg = f"factors holds {unknown[0]!r}, but factors are 1 to {len(names)}, or {names[0]!r} to {names[-1]!r}."
        raise ValueError(msg)
    positions = [known[factor] for factor in factors]
    check_once(pd.Index([names[k] for k in positions], dtype=object), "factors")
    return positions


def gene_positions(fit: record.Record, genes: Sequence[str] | str | None) -> Positions:
    """Positions of genes among those of the fit; all of them for None.

    Raises
    ------
    ValueError
        If a gene was not fitted, or is named twice.
    """
    if genes is None:
        return np.arange(len(fit.genes))
    wanted = [genes] if isinstance(genes, str) else list(genes)
    known = {gene: i for i, gene in enumerate(fit.genes.tolist())}
    unknown = [gene for gene in wanted if gene not in known]
    if unknown:
        msg = f"genes holds {unknown[0]!r}, which is not among the {len(known)} genes of the fit."
        raise ValueError(msg)
    check_once(pd.Index(wanted, dtype=object), "genes")
    return np.array([known[gene] for gene in wanted], dtype=np.intp)


def check_once(names: pd.Index[str], argument: str) -> None:
    """Refuse names that are given twice."""
    repeated = names[names.duplicated()]
    if len(repeated):
        msg = f"{argument} holds {repeated[0]!r} more than once. Name each once."
        raise ValueError(msg)
