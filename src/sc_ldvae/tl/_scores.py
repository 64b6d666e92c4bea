"""How probable a fit finds the counts of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae import record
from sc_ldvae._modality import pick_modality
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from sc_ldvae._typing import Bar, Data, Seed, Unset
    from sc_ldvae.fit import Engine


def elbo(
    data: Data,
    *,
    n_samples: int = 10,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
    rng: Seed = 0,
    key_added: str | None = None,
    progress: bool = True,
) -> float:
    """Evidence lower bound of the cells' counts, at KL weight 1.

    The encoder reads the counts anew; `data` may hold cells that were projected.

    Parameters
    ----------
    data
        Fitted or projected AnnData with raw counts, or MuData with such a `modality`.
    n_samples
        Draws from each cell's posterior.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    rng
        Seed or generator of the draws.
    key_added
        Column of `obs` that gets the value of each cell; none by default.
    progress
        Show a progress bar.

    Returns
    -------
    Mean over the cells, in nats; larger is better.

    Raises
    ------
    ValueError
        If there is no such fit, if counts or genes are missing, or if a cell has a batch, label or covariate level that
        the fit has not seen.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> held_out = adata[adata.obs["ldvae_held_out"]].copy()
    >>> value = sc_ldvae.tl.elbo(held_out, progress=False)
    >>> round(value - adata.uns["ldvae"]["elbo_held_out"], 3)
    0.0
    """
    return _score(data, _mean_elbo, n_samples, key, modality, layer, rng, key_added, progress=progress)


def reconstruction_error(
    data: Data,
    *,
    n_samples: int = 10,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
    rng: Seed = 0,
    key_added: str | None = None,
    progress: bool = True,
) -> float:
    """Minus the expected log-likelihood of the cells' counts under the posterior of latent and library.

    Parameters
    ----------
    data
        Fitted or projected AnnData with raw counts, or MuData with such a `modality`.
    n_samples
        Draws from each cell's posterior.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    rng
        Seed or generator of the draws.
    key_added
        Column of `obs` that gets the value of each cell; none by default.
    progress
        Show a progress bar.

    Returns
    -------
    Mean over the cells, in nats; smaller is better.

    Raises
    ------
    ValueError
        As :func:`elbo`.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.reconstruction_error(adata, progress=False) < -sc_ldvae.tl.elbo(adata, progress=False)
    True
    """
    return _score(data, _error, n_samples, key, modality, layer, rng, key_added, progress=progress)


def marginal_log_likelihood(
    data: Data,
    *,
    n_samples: int = 100,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
    rng: Seed = 0,
    key_added: str | None = None,
    progress: bool = True,
) -> float:
    """Log-likelihood of the cells' counts with latent and library integrated out.

    By importance sampling from the posterior [Burda16]_: a lower bound that grows with `n_samples` towards the truth,
    and that depends less on the quality of the encoder than the ELBO does.

    Parameters
    ----------
    data
        Fitted or projected AnnData with raw counts, or MuData with such a `modality`.
    n_samples
        Draws from each cell's posterior.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    rng
        Seed or generator of the draws.
    key_added
        Column of `obs` that gets the value of each cell; none by default.
    progress
        Show a progress bar.

    Returns
    -------
    Mean over the cells, in nats; larger is better.

    Raises
    ------
    ValueError
        As :func:`elbo`.

    References
    ----------
    .. [Burda16] Burda, Grosse, Salakhutdinov (2016). Importance weighted autoencoders. ICLR.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.marginal_log_likelihood(adata, progress=False) > sc_ldvae.tl.elbo(adata, progress=False)
    True
    """
    return _score(data, _marginal, n_samples, key, modality, layer, rng, key_added, progress=progress)


def _score(
    data: Data,
    of_cells: Callable[[Engine, torch.Tensor, int, torch.Generator, Bar], torch.Tensor],
    n_samples: int,
    key: str,
    modality: str | None,
    layer: str | Unset | None,
    rng: Seed,
    key_added: str | None,
    *,
    progress: bool,
) -> float:
    import torch
    from tqdm import tqdm

    from sc_ldvae.tl import _arguments as door
    from sc_ldvae.tl._stored import for_likelihood

    door.check_whole(n_samples=n_samples)
    door.check_key(key_added)
    adata = pick_modality(data, modality)
    stored = for_likelihood(adata, record.read(adata, key), layer)
    seed = int(rng) if isinstance(rng, int | np.integer) else int(np.random.default_rng(rng).integers(2**63))
    generator = torch.Generator().manual_seed(seed)
    with stored.engine() as engine, tqdm(total=adata.n_obs * n_samples, unit="draw", disable=not progress) as bar:
        values = of_cells(engine, stored.everyone, n_samples, generator, bar).numpy()
    if key_added is not None:
        record.write(adata, {"obs": {key_added: values}})
    return float(values.mean())


def _mean_elbo(
    engine: Engine, everyone: torch.Tensor, n_samples: int, generator: torch.Generator, bar: Bar
) -> torch.Tensor:
    import torch

    from sc_ldvae.fit import elbo_terms

    draws = [elbo_terms(engine, everyone, generator, bar).per_cell() for _ in range(n_samples)]
    return torch.stack(draws).mean(0)


def _error(
    engine: Engine, everyone: torch.Tensor, n_samples: int, generator: torch.Generator, bar: Bar
) -> torch.Tensor:
    import torch

    from sc_ldvae.fit import elbo_terms

    draws = [elbo_terms(engine, everyone, generator, bar).log_likelihood for _ in range(n_samples)]
    return -torch.stack(draws).mean(0)


def _marginal(
    engine: Engine, everyone: torch.Tensor, n_samples: int, generator: torch.Generator, bar: Bar
) -> torch.Tensor:
    import torch

    from sc_ldvae.fit import log_weights

    total = torch.full((len(everyone),), -torch.inf, dtype=torch.float64)
    for _ in range(n_samples):
        total = torch.logaddexp(total, log_weights(engine, everyone, generator, bar))
    return total - np.log(n_samples)
