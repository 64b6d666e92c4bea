"""How much of the counts' variation the factors account for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sc_ldvae import record
from sc_ldvae._modality import obs_of, pick_modality
from sc_ldvae._typing import UNSET

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Bar, Data, Floats, Mask, Seed, Unset
    from sc_ldvae.fit import Decoded

Scored = Literal["held_out", "all"]


def explained_deviance(
    data: Data,
    groupby: str | None = None,
    *,
    cells: Scored = "held_out",
    thinned: float | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: str | Unset | None = UNSET,
    rng: Seed = 0,
    key_added: str | None = None,
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Measure how much of the counts' variation the factors account for.

    The explained deviance is ``1 - deviance(model) / deviance(null)``; the null gives every cell its library times the
    overall proportions, and both have the fitted dispersion. A factor's marginal share is what is lost when it is set
    to its mean. The cumulative share is that of the first factors with all others at their means; it starts below zero,
    for a cell whose factors are average is not the average cell.

    The encoder reads the counts that it is judged by, so a factor that only copies noise seems to explain a little,
    even in cells that were held out from the fit. With `thinned` it does not: each count is split at random, the latent
    comes from one part and the deviance from the other (binomial thinning, also called count splitting) [Neufeld24]_.
    Fewer counts are noisier: the shares of good factors fall, too. The parts of overdispersed counts are not quite
    independent, which leaves a little optimism, and the loadings have seen both parts of cells that were not held out.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with such a `modality`.
    groupby
        Column of `obs` with groups of cells to measure apart; cells without a group are left out of them.
    cells
        ``'held_out'``: those that the fit has not seen. ``'all'``: every cell.
    thinned
        Share of the counts to judge by, above 0 and below 1, such as 0.2; by default latent and deviance come from the
        same counts.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData.
    layer
        Layer of raw counts, X for None; the layer of the fit by default.
    rng
        Seed or generator of the thinning.
    key_added
        Name of the result in place of ``'ldvae_explained_deviance'`` (of `key` and ``'_explained_deviance'``).
    copy
        Return a changed copy and leave `data` as it is.
    progress
        Show a progress bar.

    Returns
    -------
    None, or the copy. ``uns['ldvae_explained_deviance']`` gets a dict:

    ``total``
        Share that the whole model explains.
    ``base``
        Share that is left when every factor is at its mean: where the cumulative shares start.
    ``marginal``, ``cumulative``
        Shares of the factors, n_latent.
    ``n_cells``
        Number of cells.
    ``groups``
        With `groupby`: the same by group, arrays with one row per group, and their names (``name``).
    ``params``, ``fit``
        `cells`, `thinned` (0: not) and `groupby`; a mark of the fit, by which getters tell it from others.

    Raises
    ------
    ValueError
        If there is no such fit or column, if no cell was held out or has a group, if counts are missing, or if thinning
        leaves none. `data` is not changed.

    See Also
    --------
    sc_ldvae.pl.explained_deviance : Plot the result.
    sc_ldvae.get.explained_deviance : The result as a frame.

    References
    ----------
    .. [Neufeld24] Neufeld, Gao, Popp, Battle, Witten (2024). Inference after latent variable estimation for
       single-cell RNA sequencing data. Biostatistics 25:270.

    Examples
    --------
    >>> import sc_ldvae
    >>> adata = sc_ldvae.datasets.simulate(n_obs=200, n_vars=50, n_latent=3, n_batches=2)
    >>> sc_ldvae.tl.ldvae(adata, n_latent=3, max_epochs=2, progress=False)
    >>> sc_ldvae.tl.explained_deviance(adata, "batch", cells="all", progress=False)
    >>> adata.uns["ldvae_explained_deviance"]["marginal"].shape
    (3,)
    """
    from tqdm import tqdm

    from sc_ldvae.tl import _arguments as door
    from sc_ldvae.tl._groups import grouped
    from sc_ldvae.tl._per_factor import with_table

    door.check_key(key_added)
    adata = pick_modality(data, modality)
    fit = record.read(adata, key)
    scored, others = _scored(adata, fit, cells)
    codes, names = (np.full(adata.n_obs, -1), []) if groupby is None else grouped(adata, groupby)
    judged = _judged(adata, fit, layer) if thinned is None else _thinned(adata, fit, layer, thinned, rng)
    scored = scored & (np.diff(judged.decoded.counts.indptr) > 0)
    _check_some(scored, codes, groupby, thinned)
    with tqdm(total=int(scored.sum()), unit="cell", disable=not progress) as bar:
        per_cell = _deviances(fit, judged, np.flatnonzero(scored), others, bar)
    result: dict[str, Any] = _shares(per_cell.sum(0), fit.n_latent) | {
        "n_cells": len(per_cell),
        "params": {"cells": cells, "thinned": 0.0 if thinned is None else float(thinned), "groupby": groupby or ""},
    }
    if groupby is not None:
        result["groups"] = _by_group(per_cell, codes[scored], names, fit.n_latent)
    name = f"{key}_explained_deviance" if key_added is None else key_added
    return with_table(data, modality, name, result, fit=fit, copy=copy)


@dataclass(frozen=True)
class _Judged:
    """Cells with the counts that the factors are judged by."""

    decoded: Decoded
    training_counts: Any
    """Counts that the null's proportions come from, in the same cells."""


def _scored(adata: AnnData, fit: record.Record, cells: Scored) -> tuple[Mask, Mask]:
    """Which cells to judge by, and which the null's proportions come from, n_obs each."""
    if cells not in get_args(Scored):
        msg = f"cells={cells!r} is unknown. Choose one of {', '.join(map(repr, get_args(Scored)))}."
        raise ValueError(msg)
    every = np.ones(adata.n_obs, dtype=bool)
    held_out = np.asarray(obs_of(adata).get(fit.keys.held_out, ~every), dtype=bool)
    if cells == "held_out" and not held_out.any():
        msg = "cells='held_out', but no cell was held out from the fit. Pass cells='all'."
        raise ValueError(msg)
    return held_out if cells == "held_out" else every, every if held_out.all() else ~held_out


def _check_some(scored: Mask, codes: np.ndarray, groupby: str | None, thinned: float | None) -> None:
    if not scored.any():
        msg = f"thinned={thinned} leaves no count to judge by. Give a share nearer to 0.5."
        raise ValueError(msg)
    if groupby is not None and not (codes[scored] >= 0).any():
        msg = f"groupby: obs[{groupby!r}] has no group for any of the {scored.sum()} cells. Fill it, or leave it out."
        raise ValueError(msg)


def _judged(adata: AnnData, fit: record.Record, layer: str | Unset | None) -> _Judged:
    """Cells with their stored latent, in the frame in which the factors are shown."""
    from sc_ldvae.fit import Decoded
    from sc_ldvae.tl._stored import fitted_counts

    counts, state = fitted_counts(adata, fit, layer), record.state_of(adata, fit)
    latent = np.asarray(adata.obsm[fit.keys.latent], dtype=np.float64)
    design, groups = fit.design.matrix(obs_of(adata)), fit.theta_groups(adata)
    return _Judged(Decoded(counts, latent, design, state.library.astype(np.float64), groups), counts)


def _thinned(adata: AnnData, fit: record.Record, layer: str | Unset | None, share: float, rng: Seed) -> _Judged:
    """Cells with a share of their counts, and the latent that the encoder makes of the others."""
    from sc_ldvae.fit import Decoded, posterior
    from sc_ldvae.tl._stored import encoder_of, fitted_counts

    if not 0 < share < 1:
        msg = f"thinned must be above 0 and below 1, but is {share}. Give the share of counts to judge by, such as 0.2."
        raise ValueError(msg)
    counts = fitted_counts(adata, fit, layer)
    kept, judged = counts.copy(), counts.copy()
    judged.data = np.random.default_rng(rng).binomial(counts.data.astype(np.int64), share).astype(np.float32)
    # What the encoder reads has the size that it is used to.
    kept.data = (counts.data - judged.data) / np.float32(1 - share)
    for part in (kept, judged):
        part.eliminate_zeros()
    stored = encoder_of(adata, fit, kept)
    with stored.engine() as engine:
        parts = posterior(stored.model, engine, stored.cells, stored.everyone)
    latent, _, library = (part.double().numpy() for part in parts)
    if fit.rotation is not None:
        latent = latent @ fit.rotation
    judged[library == 0] = 0
    judged.eliminate_zeros()
    design, groups = fit.design.matrix(obs_of(adata)), fit.theta_groups(adata)
    return _Judged(Decoded(judged, latent, design, share * library, groups), counts)


def _deviances(fit: record.Record, judged: _Judged, scored: np.ndarray, others: Mask, bar: Bar) -> Floats:
    """Deviances of the `scored` cells: null, model, without each factor, and with the first 0, 1, ... factors."""
    from sc_ldvae.fit import deviances_without, proportions

    n_latent = fit.n_latent
    every = np.ones((n_latent, n_latent), dtype=bool)
    without = np.vstack([np.zeros((1, n_latent), dtype=bool), np.eye(n_latent, dtype=bool), np.triu(every)])
    parts = []
    for part in deviances_without(
        fit.shown_decoder,
        judged.decoded.rows(scored),
        without,
        proportions(judged.training_counts[others]),
        judged.decoded.latent.mean(0),
    ):
        parts.append(part)
        bar.update(len(part))
    return np.concatenate(parts)


def _shares(deviances: Floats, n_latent: int) -> dict[str, Any]:
    """Shares of the null's deviance out of sums over cells, which may be one row per group."""
    null, model = deviances[..., :1], deviances[..., 1:2]
    without, first = deviances[..., 2 : 2 + n_latent], deviances[..., 2 + n_latent :]
    ends = np.concatenate([first[..., 1:], model], axis=-1)
    shares = {
        "total": (1 - model / null)[..., 0],
        "base": (1 - first[..., :1] / null)[..., 0],
        "marginal": (without - model) / null,
        "cumulative": 1 - ends / null,
    }
    return {name: share if np.ndim(share) else float(share) for name, share in shares.items()}


def _by_group(per_cell: Floats, codes: np.ndarray, names: list[str], n_latent: int) -> dict[str, Any]:
    """The same for each group that has cells."""
    sizes = np.bincount(codes[codes >= 0], minlength=len(names))
    found = np.flatnonzero(sizes)
    sums = np.stack([per_cell[codes == group].sum(0) for group in found])
    return _shares(sums, n_latent) | {"name": np.array([names[i] for i in found], dtype=str), "n_cells": sizes[found]}
