"""Counts drawn from the model itself, with everything known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.special import softmax

from sc_ldvae._arguments import door
from sc_ldvae._memory import check_memory
from sc_ldvae.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from sc_ldvae._typing import Floats, Seed
    from sc_ldvae.likelihoods import GeneLikelihood

_LIBRARY_SD = 0.3
# Median over the genes of the expression that is no share of a library, in counts.
_EXPRESSION = 30.0
_EFFECT_SD = 0.3
# NumPy draws no Poisson counts of a larger rate than 9e18, and cells that overdispersion lifts are to stay below it.
_LARGEST = 1e12


@door
def simulate(
    n_obs: int = 1000,
    n_vars: int = 300,
    n_latent: int = 5,
    *,
    n_batches: int = 1,
    n_continuous: int = 0,
    mean_library: float = 2000.0,
    gene_likelihood: GeneLikelihood = "nb",
    rng: Seed = 0,
) -> AnnData:
    """Draw counts from the linearly decoded model with known factors.

    Each factor raises a program of its own, a tenth of the genes, and lowers the others a little; factors have falling
    strength, so that order and direction are identified. Of proteins (``'nb_background'``) each marks one factor.
    Batches and continuous covariates act on every gene.

    Parameters
    ----------
    n_obs, n_vars
        Number of cells and of genes.
    n_latent
        Number of factors.
    n_batches
        Number of batches, in ``obs['batch']``.
    n_continuous
        Number of continuous covariates, standard normal, in ``obs['covariate1']`` and so on.
    mean_library
        Median library of a cell: its total count, for ``'bernoulli'`` before only ones are left of it.
        ``'nb_background'`` has none, and foregrounds of about 30 counts.
    gene_likelihood
        ``'nb'``, ``'zinb'``, ``'poisson'``, ``'bernoulli'`` (zeros and ones) or ``'nb_background'`` (as of proteins).
    rng
        Seed or generator.

    Returns
    -------
    Counts in `X` (float32, CSR) and the truth beside them: ``obsm['true_latent']``, ``obs['true_library']`` (where
    there is one), ``varm['true_loadings']``, ``varm['true_batch_effects']`` and ``varm['true_continuous_effects']``
    (where there are such), ``var['true_intercept']``, ``var['true_theta']`` and ``var['true_background']`` (where there
    are such).

    Raises
    ------
    ValueError
        If a size is below one, or if `gene_likelihood` is unknown.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=100, n_vars=40, n_latent=2, n_batches=2)
    >>> adata.shape, adata.varm["true_loadings"].shape, adata.varm["true_batch_effects"].shape
    ((100, 40), (40, 2), (40, 2))
    """
    _check_range(1, n_obs=n_obs, n_vars=n_vars, n_latent=n_latent, n_batches=n_batches, mean_library=mean_library)
    _check_range(0, n_continuous=n_continuous)
    if gene_likelihood not in LIKELIHOODS:
        msg = f"gene_likelihood={gene_likelihood!r} is unknown. Choose one of {', '.join(map(repr, LIKELIHOODS))}."
        raise ValueError(msg)
    width = n_vars + n_latent + n_continuous
    check_memory(8 * (n_obs * width + n_batches * n_vars), f"{n_obs} cells x {width} numbers", "Ask for fewer.")
    draw, likelihood = np.random.default_rng(rng), LIKELIHOODS[gene_likelihood]
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_obs)])
    if likelihood.has_library:
        obs["true_library"] = mean_library * np.exp(draw.normal(0, _LIBRARY_SD, n_obs))
    var = pd.DataFrame({"true_intercept": draw.normal(0, 1, n_vars)}, index=[f"gene{i}" for i in range(n_vars)])
    if not likelihood.has_library:
        var["true_intercept"] += np.log(_EXPRESSION)
    latent = draw.normal(size=(n_obs, n_latent))
    loadings = _programs(n_vars, n_latent, draw) if likelihood.has_library else _markers(n_vars, n_latent, draw)
    truth = {"true_loadings": loadings}
    eta = latent @ loadings.T + var["true_intercept"].to_numpy()

    if n_batches > 1:
        batch = draw.integers(n_batches, size=n_obs)
        obs["batch"] = pd.Categorical([f"batch{i}" for i in batch])
        truth["true_batch_effects"] = _effects(n_vars, n_batches, draw)
        eta += truth["true_batch_effects"].T[batch]
    if n_continuous:
        values = draw.normal(size=(n_obs, n_continuous))
        obs[[f"covariate{i + 1}" for i in range(n_continuous)]] = values
        truth["true_continuous_effects"] = _effects(n_vars, n_continuous, draw)
        eta += values @ truth["true_continuous_effects"].T

    expression = np.exp(eta)
    if likelihood.has_library:
        expression = obs["true_library"].to_numpy()[:, None] * softmax(eta, axis=1)
    parameters = likelihood.simulated(n_vars, draw)
    var = var.assign(**{f"true_{name}": values for name, values in parameters.items() if np.ndim(values)})
    counts = likelihood.draw(likelihood.mean(expression, parameters), parameters, [draw] * 3)
    adata = AnnData(csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
    adata.obsm["true_latent"] = latent
    adata.varm.update(truth)
    return adata


def _check_range(least: int, **numbers: float) -> None:
    for name, number in numbers.items():
        if not least <= number <= _LARGEST:
            msg = f"{name} must be at least {least} and at most {_LARGEST:g}, but is {number}."
            raise ValueError(msg)


def _programs(n_vars: int, n_latent: int, draw: np.random.Generator) -> Floats:
    """Loadings, n_vars x n_latent, centred over genes, the strength of the factors falling by half."""
    loadings = draw.normal(0, 0.05, (n_vars, n_latent))
    size = max(1, n_vars // 10)
    for k, genes in enumerate(np.array_split(draw.permutation(n_vars), max(n_latent, n_vars // size))[:n_latent]):
        loadings[genes, k] += draw.gamma(4, 0.25, len(genes))
    strength = np.linspace(1, 0.5, n_latent)
    return (loadings - loadings.mean(0)) * strength


def _markers(n_vars: int, n_latent: int, draw: np.random.Generator) -> Floats:
    """Loadings of surface proteins, n_vars x n_latent: each one marks a factor, and strongly."""
    loadings = draw.normal(0, 0.05, (n_vars, n_latent))
    for k, genes in enumerate(np.array_split(draw.permutation(n_vars), n_latent)):
        loadings[genes, k] += draw.gamma(8, 0.19, len(genes))
    return loadings * np.linspace(1, 0.5, n_latent)


def _effects(n_vars: int, n: int, draw: np.random.Generator) -> Floats:
    """Covariate effects, n_vars x n, summing to zero over levels and genes."""
    effects = draw.normal(0, _EFFECT_SD, (n_vars, n))
    effects -= effects.mean(0)
    return effects - effects.mean(1, keepdims=True) if n > 1 else effects
