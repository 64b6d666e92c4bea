"""What the likelihood of each count depends on: mean, dispersion, zero inflation, library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sc_ldvae import record
from sc_ldvae._arguments import door
from sc_ldvae._memory import check_memory
from sc_ldvae.inputs import gene_positions, obs_of, pick_modality, told_whose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data


@door
def likelihood_parameters(
    data: Data,
    *,
    genes: Sequence[str] | str | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
) -> dict[str, pd.DataFrame]:
    """Parameters of the distribution of each count, at the posterior mean of the latent.

    Computed from the stored latent and library, for each cell's own batch and covariates: counts are not needed.

    Parameters
    ----------
    data
        Fitted AnnData, or MuData with a fitted `modality`.
    genes
        Names of fitted genes; all by default.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.

    Returns
    -------
    Frames n_obs x genes (by default ``uns['ldvae']['genes']``) in single precision: ``'mean'``, in counts and without
    zero inflation; ``'theta'``, the inverse dispersion, such that the variance is ``mean + mean**2 / theta``,
    ``'zero_inflation'``, the probability of an extra zero, and ``'background'``, which is part of the mean, for
    likelihoods that have them. With ``'bernoulli'`` the probability of any count is ``1 - exp(-mean)``.

    Raises
    ------
    ValueError
        If there is no such fit, or if a gene, batch, label or covariate level is none of the fit's.
    MemoryError
        If the frames would not fit into memory. The sentence names the needed bytes.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> parameters = sc_ldvae.get.likelihood_parameters(adata, genes=["gene0", "gene1"])
    >>> {name: frame.shape for name, frame in parameters.items()}
    {'mean': (200, 2), 'theta': (200, 2)}
    """
    from sc_ldvae.decode import CountDistribution, chunks_of

    adata = pick_modality(data, modality)
    stored, obs = record.read(adata, key), obs_of(adata)
    chosen = gene_positions(stored, genes)
    state = record.state_of(adata, stored)
    with told_whose(data, adata):
        design, groups = stored.design.matrix(obs), stored.groups(obs)
    counts, shape = CountDistribution.of_genes(stored.decoder, chosen), (len(state), len(chosen))
    names = counts.parameter_names
    check_memory(
        4 * len(names) * len(state) * len(chosen),
        f"{len(names)} frames of {len(state)} cells x {len(chosen)} genes",
        "Ask for some genes only (genes), or for fewer cells.",
    )
    values = {name: np.empty(shape, dtype=np.float32) for name in names}
    for cells in chunks_of(*shape):
        parameters = counts.parameters(state.latent[cells], design[cells], state.library[cells], groups[cells])
        for name in names:
            values[name][cells] = parameters[name]
    return {name: pd.DataFrame(part, adata.obs_names, stored.genes[chosen]) for name, part in values.items()}


@door
def latent_library_size(data: Data, *, key: str = record.DEFAULT, modality: str | None = None) -> pd.Series[float]:
    """Library of each cell: what its expression proportions are multiplied by to give the means of its counts.

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
    n_obs, in counts over the fitted genes. Where the library is latent, the median of its posterior: exp of the mean of
    its log. Where it is observed, the total count of the cell, or its size factor times a constant that makes their
    mean the mean total. Where the likelihood has none, as ``'nb_background'``, 1.

    Raises
    ------
    ValueError
        If there is no such fit.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, use_observed_lib_size=True, progress=False)
    >>> bool((sc_ldvae.get.latent_library_size(adata) == adata.X.sum(1).A1).all())
    True
    """
    adata = pick_modality(data, modality)
    stored = record.read(adata, key)
    return pd.Series(record.state_of(adata, stored).library, adata.obs_names, name=stored.keys.library)
