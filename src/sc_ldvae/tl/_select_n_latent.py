"""How many factors to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door, options_of
from sc_ldvae._typing import UNSET
from sc_ldvae.tl._ldvae import ldvae

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sc_ldvae._typing import Data, Mask, Seed, Unset

_FEWEST_CELLS = 8


@door
def select_n_latent(
    data: Data,
    n_latent: Iterable[int] = (2, 4, 6, 8, 10, 12, 15, 20),
    n_seeds: int = 2,
    *,
    modality: str | None = None,
    modalities: inputs.Modalities | None = None,
    mask_var: inputs.PerModality | Mask | Sequence[bool] | str | Unset | None = UNSET,
    hide_modality: float = 0.3,
    modality_weights: inputs.PerModality | None = None,
    rng: Seed = 0,
    key_added: str = "ldvae_n_latent",
    copy: bool = False,
    progress: bool = True,
    **options: Any,  # noqa: ANN401  arguments of tl.ldvae
) -> Data | None:
    """Fit several numbers of factors to halves of the cells, and recommend one.

    For every seed the cells are split into two random halves (each with half of every batch). Each number of factors is
    fitted to either half and judged by the other: by its ELBO, and by whether its factors come back there. Recommended
    is the smallest number whose ELBO is within one standard error of the best, the error being that of the difference
    over cells [Breiman84]_. Half of the cells support fewer factors than all of them do: with few cells take the
    recommendation for a lower bound.

    Parameters
    ----------
    data
        AnnData with raw counts, or MuData with such a `modality` or several `modalities`. It need not be fitted.
    n_latent
        Numbers of factors to compare, such as ``range(2, 21, 2)``.
    n_seeds
        Number of splits into halves; each costs two fits for every number of factors.
    modality
        Modality of a MuData.
    modalities, mask_var, hide_modality, modality_weights
        As in :func:`ldvae`.
    rng
        Seed or generator of splits and fits.
    key_added
        Name of the result in `uns`.
    copy
        Return a changed copy and leave `data` as it is.
    progress
        Show a progress bar of the fits.
    **options
        Further arguments of :func:`ldvae`, such as `layer`, `batch_key` or `gene_likelihood`. Without `loadings_prior`
        all factors that are asked for stay.

    Returns
    -------
    None, or the copy. ``uns['ldvae_n_latent']`` gets a dict; arrays have one entry per number of factors:

    ``n_latent``
        Numbers of factors, ascending.
    ``elbo``
        Mean ELBO of the held-out halves, in nats per cell.
    ``elbo_behind``, ``elbo_behind_se``
        How far it is behind the best, and the standard error of that.
    ``explained_deviance``
        Explained deviance of the held-out halves. It keeps growing with the number of factors, for the encoder reads
        the counts that it is judged by; the ELBO charges for that.
    ``stability``
        Mean cosine between the matched factors of two halves.
    ``n_stable``
        Mean number of factors with a cosine of at least 0.5.
    ``n_active``
        Mean number of factors whose posterior mean varies over cells, by more than 0.01 [Burda2016]_.
    ``recommended``, ``reason``
        The recommended number of factors, and why.
    ``params``
        `n_seeds` and the further arguments.

    Raises
    ------
    ValueError
        If a number of factors does not fit the data, there are too few cells, or as :func:`ldvae`. `data` is not
        changed.
    TypeError
        If an argument has the wrong type, or is none of :func:`ldvae`.

    See Also
    --------
    sc_ldvae.pl.n_latent : Plot the result.
    sc_ldvae.get.n_latent : The result as a frame.

    References
    ----------
    .. [Breiman84] Breiman, Friedman, Olshen, Stone (1984). Classification and regression trees, section 3.4.3.
    .. [Burda2016] Burda, Grosse, Salakhutdinov (2016). Importance weighted autoencoders. ICLR.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=400, n_vars=60, n_latent=2)
    >>> sc_ldvae.tl.select_n_latent(adata, [1, 2, 4], n_seeds=1, max_epochs=30, progress=False)
    >>> adata.uns["ldvae_n_latent"]["recommended"]
    2
    """
    from tqdm import tqdm

    from sc_ldvae import assess, fit

    options = {"loadings_prior": None} | options_of(ldvae, options)
    given = inputs.ByModality(options.get("layer"), mask_var, options.get("size_factor_key"), modality_weights)
    asked = inputs.asked_of(data, modality, modalities, given, inputs.Options.of(options), hide_modality)
    asked.find()
    inputs.check_key(key_added)
    inputs.check_whole(n_seeds=n_seeds)
    grid = _grid(n_latent, asked.n_genes)
    if asked.cells.n_obs < _FEWEST_CELLS:
        msg = f"data has {asked.cells.n_obs} cells, too few to fit halves of them. {_FEWEST_CELLS} are needed."
        raise ValueError(msg)
    request = asked.request()
    generator, strata = np.random.default_rng(rng), asked.annotations.design.strata(asked.annotations.obs)
    with tqdm(total=2 * n_seeds * len(grid), desc="Fits", unit="fit", disable=not progress) as bar:
        scans = [fit.scan(request, grid, strata, generator, bar) for _ in range(n_seeds)]
    table = assess.scan_table(grid, scans)
    kept = {name: value for name, value in options.items() if not isinstance(value, dict)}
    params = {"n_seeds": n_seeds} | record.storable(kept)
    result = table | assess.recommended(table) | {"params": params}

    def write(data: Data) -> None:
        record.write_result(data, key_added, result)

    return inputs.changed(data, modality, write, copy=copy)


def _grid(n_latent: Iterable[int], n_genes: int) -> list[int]:
    grid = sorted({int(number) for number in n_latent})
    if not grid:
        msg = "n_latent holds no number. Give the numbers of factors to compare, such as range(2, 21, 2)."
        raise ValueError(msg)
    inputs.check_whole(n_latent=grid[0])
    inputs.check_n_latent(grid[-1], n_genes)
    return grid
