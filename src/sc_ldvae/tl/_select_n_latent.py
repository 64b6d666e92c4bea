"""How many factors to fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae._modality import pick_modality
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sc_ldvae._typing import Bar, Data, Floats, Mask, Seed, Unset
    from sc_ldvae.tl._request import Request
    from sc_ldvae.tl._resample import Resampled

# Variance over the cells of the posterior mean of a factor that is in use.
_ACTIVE = 0.01
# Cosine between halves of a factor that comes back.
_FOUND = 0.5
_DRAWS = 5
_FEWEST_CELLS = 8
# Arguments of tl.ldvae that this function has itself, or that have no meaning for fits to halves.
_NOT_PASSED = {"data", "n_latent", "modality", "mask_var", "train_size", "rng", "random_state", "key_added"}
_NOT_PASSED |= {"copy", "progress"}


def select_n_latent(
    data: Data,
    n_latent: Iterable[int] = (2, 4, 6, 8, 10, 12, 15, 20),
    n_seeds: int = 2,
    *,
    modality: str | None = None,
    mask_var: Mask | Sequence[bool] | str | Unset | None = UNSET,
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
        AnnData with raw counts, or MuData with such a `modality`. It need not be fitted.
    n_latent
        Numbers of factors to compare, such as ``range(2, 21, 2)``.
    n_seeds
        Number of splits into halves; each costs two fits for every number of factors.
    modality
        Modality of a MuData.
    mask_var
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
        Further arguments of :func:`ldvae`, such as `layer`, `batch_key` or `gene_likelihood`.

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
    >>> sc_ldvae.tl.select_n_latent(adata, [1, 2, 4], n_seeds=1, progress=False)
    >>> adata.uns["ldvae_n_latent"]["recommended"]
    2
    """
    from tqdm import tqdm

    from sc_ldvae.tl import _arguments as door
    from sc_ldvae.tl._per_factor import with_table
    from sc_ldvae.tl._request import Request
    from sc_ldvae.tl._result import storable

    adata = pick_modality(data, modality)
    door.check_object(adata)
    door.check_key(key_added)
    door.check_whole(n_seeds=n_seeds)
    mask, asked = door.gene_mask(adata, mask_var), _asked(options)
    grid = _grid(n_latent, int(mask.sum()))
    if adata.n_obs < _FEWEST_CELLS:
        msg = f"data has {adata.n_obs} cells, too few to fit halves of them. {_FEWEST_CELLS} are needed."
        raise ValueError(msg)
    request, generator = Request.of(adata, mask, asked), np.random.default_rng(rng)
    with tqdm(total=2 * n_seeds * len(grid), desc="Fits", unit="fit", disable=not progress) as bar:
        scans = [_scan(request, grid, generator, bar) for _ in range(n_seeds)]
    table = _table(grid, scans)
    result = table | _recommended(table) | {"params": {"n_seeds": n_seeds} | storable(options)}
    return with_table(data, modality, key_added, result, copy=copy)


class _Judged(NamedTuple):
    """A fit to a half of the cells, judged by the other half."""

    elbo: Floats
    """Of each held-out cell."""
    explained_deviance: float
    n_active: int
    directions: Floats
    """n_genes x n_latent."""


@dataclass(frozen=True)
class _Scan:
    """One split of the cells, one row per number of factors."""

    elbo: Floats
    """Of each cell, by the fit that has not seen it."""
    explained_deviance: Floats
    cosines: list[Floats]
    n_active: Floats


def _asked(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of tl.ldvae, with its defaults."""
    from sc_ldvae.tl._ldvae import ldvae

    known = inspect.signature(ldvae).parameters
    defaults = {name: one.default for name, one in known.items() if name not in _NOT_PASSED}
    unknown = [name for name in options if name not in defaults]
    if unknown:
        msg = f"{unknown[0]!r} is no argument that fits to halves take. They take {', '.join(sorted(defaults))}."
        raise TypeError(msg)
    return defaults | dict(options)


def _grid(n_latent: Iterable[int] | int, n_genes: int) -> list[int]:
    from sc_ldvae.tl import _arguments as door

    if not isinstance(n_latent, Iterable):
        msg = f"n_latent must hold several numbers to compare, such as range(2, 21, 2), but is {n_latent}."
        raise TypeError(msg)
    numbers = list(n_latent)
    if not numbers:
        msg = "n_latent holds no number. Give the numbers of factors to compare, such as range(2, 21, 2)."
        raise ValueError(msg)
    for number in numbers:
        door.check_whole(n_latent=number)
    grid = sorted({int(number) for number in numbers})
    door.check_n_latent(grid[-1], n_genes)
    return grid


def _scan(request: Request, grid: list[int], rng: np.random.Generator, bar: Bar) -> _Scan:
    """Fit every number of factors to both halves of one split."""
    from sc_ldvae.assess import matched
    from sc_ldvae.tl._resample import halves

    batch, obs = request.annotations.design.batch, request.annotations.obs
    samples = halves(np.zeros(len(obs)) if batch is None else batch.codes(obs), rng)
    elbo, deviance, active, cosines = np.empty((len(grid), len(obs))), [], [], []
    for row, n_latent in enumerate(grid):
        pair = []
        for sample in samples:
            done = _judged(request, n_latent, sample, rng)
            elbo[row, sample.others] = done.elbo
            pair.append(done)
            bar.update()
        cosines.append(np.abs(matched(pair[0].directions, pair[1].directions)[1]))
        deviance.append(np.mean([one.explained_deviance for one in pair]))
        active.append(np.mean([one.n_active for one in pair]))
    return _Scan(elbo, np.array(deviance), cosines, np.array(active))


def _judged(request: Request, n_latent: int, sample: Resampled, rng: np.random.Generator) -> _Judged:
    import torch

    from sc_ldvae.assess import directions, gene_information
    from sc_ldvae.fit import canonical_decoder, decoded_cells, deviance_on_held_out, elbo_terms, engine_of

    done = request.trained(n_latent, sample.training, sample.others, rng)
    n_training, n_cells = len(sample.training), len(sample.training) + len(sample.others)
    cells, device = done.cells.to(request.device), request.device
    others, generator = torch.arange(n_training, n_cells, device=device), torch.Generator(device).manual_seed(0)
    with engine_of(done.model, cells) as engine:
        draws = [elbo_terms(engine, others, generator).per_cell() for _ in range(_DRAWS)]
    decoder = canonical_decoder(done.model)
    counts = request.counts[np.concatenate(sample)]
    decoded = decoded_cells(done.model, counts, cells)
    explained, _ = deviance_on_held_out(decoder, decoded, np.arange(n_cells) >= n_training)
    information = gene_information(decoder, float(decoded.library.mean()))
    return _Judged(
        torch.stack(draws).mean(0).cpu().numpy(),
        explained,
        int((decoded.latent[n_training:].var(0) > _ACTIVE).sum()),
        directions(decoder.log_proportion.loadings, information),
    )


def _table(grid: list[int], scans: list[_Scan]) -> dict[str, Any]:
    """Means over the splits, one entry per number of factors."""
    per_cell = np.mean([scan.elbo for scan in scans], axis=0)
    elbo = per_cell.mean(1)
    behind = per_cell[elbo.argmax()] - per_cell
    cosines = [np.array([scan.cosines[row] for scan in scans]) for row in range(len(grid))]
    return {
        "n_latent": np.array(grid),
        "elbo": elbo,
        "elbo_behind": behind.mean(1),
        "elbo_behind_se": behind.std(1) / np.sqrt(per_cell.shape[1]),
        "explained_deviance": np.mean([scan.explained_deviance for scan in scans], axis=0),
        "stability": np.array([one.mean() for one in cosines]),
        "n_stable": np.array([(one >= _FOUND).sum(1).mean() for one in cosines]),
        "n_active": np.mean([scan.n_active for scan in scans], axis=0),
    }


def _recommended(table: Mapping[str, Any]) -> dict[str, Any]:
    grid, behind, error = table["n_latent"], table["elbo_behind"], table["elbo_behind_se"]
    best, chosen = int(table["elbo"].argmax()), int((behind <= error).argmax())
    reason = f"{grid[chosen]} factors have the best held-out ELBO"
    if chosen != best:
        reason = (
            f"{grid[chosen]} factors are the fewest whose held-out ELBO is within one standard error of the best: "
            f"{behind[chosen]:.2f} +- {error[chosen]:.2f} nats per cell behind {grid[best]} factors"
        )
    reason += f"; {table['n_stable'][chosen]:g} of them come back in the other half of the cells."
    if len(grid) > 1 and (chosen == len(grid) - 1 or 1 < grid[chosen] == grid[0]):
        end = "smallest" if chosen == 0 else "largest"
        reason += f" It is the {end} number that was tried: widen the range."
    return {"recommended": int(grid[chosen]), "reason": reason}
