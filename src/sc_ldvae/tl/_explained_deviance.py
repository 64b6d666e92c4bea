"""How much of the counts' variation the factors account for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae import inputs, record
from sc_ldvae._arguments import door
from sc_ldvae._products import product
from sc_ldvae._typing import UNSET
from sc_ldvae.tl._scored import check_some, judged_by, measured, with_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from sc_ldvae._typing import Data, Floats, Mask, Positions, Seed
    from sc_ldvae.assess import Decoded, Deviances
    from sc_ldvae.counts import Source
    from sc_ldvae.tl._scored import Scored


@door
def explained_deviance(
    data: Data,
    groupby: str | None = None,
    *,
    cells: Scored = "held_out",
    thinned: float | None = None,
    key: str = record.DEFAULT,
    modality: str | None = None,
    layer: inputs.Layer = UNSET,
    rng: Seed = 0,
    key_added: str | None = None,
    copy: bool = False,
    progress: bool = True,
) -> Data | None:
    """Measure how much of the counts' variation the factors account for.

    The explained deviance is ``1 - deviance(model) / deviance(null)``; the null gives every cell its library times the
    overall proportions, and both have the fitted dispersion. The shares of the factors add up to it: a factor's share
    is what it adds to those that are there before it, on average over the orders in which they may come (its Shapley
    value). Factors that are not there are averaged out of the expected counts, whose totals stay, so without any factor
    next to nothing is explained, but for what covariates explain (`base`). The shares are those that the fit itself
    measured, on the same cells by default; this function adds what else is asked. A factor's marginal share is what is
    lost without it.

    The encoder reads the counts that it is judged by, so a factor that only copies noise seems to explain a little,
    even in cells that were held out from the fit. With `thinned` it does not: each count is split at random, the latent
    comes from one part and the deviance from the other (binomial thinning, also called count splitting) [Neufeld24]_.
    Fewer counts are noisier: the shares of good factors fall, too. The parts of overdispersed counts are not quite
    independent, which leaves a little optimism, and the loadings have seen both parts of cells that were not held out.

    Parameters
    ----------
    data
        Fitted AnnData with raw counts, or MuData with such a `modality` or a joint fit.
    groupby
        Column of `obs` with groups of cells to measure apart; cells without a group are left out of them.
    cells
        ``'held_out'``: those that the fit has not seen, without `groupby` at most 2,000 evenly spaced ones, as the fit
        itself takes. ``'all'``: every cell.
    thinned
        Share of the counts to judge by, above 0 and below 1, such as 0.2; by default latent and deviance come from the
        same counts. Not with ``gene_likelihood='bernoulli'``: whether there are counts has no parts.
    key
        The `key_added` of the fit.
    modality
        Modality of a MuData; of a joint fit None for all of them, each measured by itself.
    layer
        Layer of raw counts, X for None; the layer of the fit by default. Of a joint fit also one for each modality.
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
        Share that is explained without any factor, as by covariates: near zero where there are none.
    ``share``
        Of each factor, n_latent. They sum to `total` less `base`.
    ``marginal``
        What is lost without each factor, n_latent.
    ``cumulative``
        `base` and the shares of the factors up to each, n_latent: the last is the `total`.
    ``n_cells``
        Number of cells.
    ``groups``
        With `groupby`: the same by group, arrays with one row per group, and their names (``name``).
    ``modalities``
        Of a joint fit, names of the modalities: then `total`, `base` and `n_cells` have one value for each, `share`,
        `marginal` and `cumulative` one row.
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
    >>> adata.uns["ldvae_explained_deviance"]["share"].shape
    (3,)
    """
    inputs.check_key(key_added)
    found, stored = inputs.fitted_of(data, key, modality)
    params = {"cells": cells, "thinned": 0.0 if thinned is None else float(thinned), "groupby": groupby or ""}
    if isinstance(stored, record.JointRecord):
        result = _of_modalities(found, stored, groupby, cells, thinned, layer, rng, progress=progress)
    else:
        groups = None if groupby is None else inputs.grouped(data, modality, groupby)
        with inputs.told_whose(data, found):
            result = _of_one(data, found, stored, groupby, groups, cells, thinned, layer, rng, progress=progress)
    result["params"] = params
    name = f"{key}_explained_deviance" if key_added is None else key_added

    def write(data: Data) -> None:
        record.write_result(data, name, result, stored)

    return inputs.changed(data, modality, write, copy=copy)


def _of_one(
    data: Data,
    adata: AnnData,
    stored: record.Record,
    groupby: str | None,
    groups: tuple[np.ndarray, list[str]] | None,
    cells: Scored,
    thinned: float | None,
    layer: inputs.Layer,
    rng: Seed,
    *,
    progress: bool,
) -> dict[str, Any]:
    scored, others = judged_by(adata, stored, cells)
    codes, names = (np.full(adata.n_obs, -1), []) if groups is None else groups
    counts = inputs.fitted_counts(adata, stored, inputs.layer_of(layer))
    decoded = _decoded(adata, stored, counts) if thinned is None else _thinned(adata, stored, counts, thinned, rng)
    scored = with_counts(stored, decoded, scored)
    with inputs.told_whose(data, adata, and_all=True):
        check_some(scored, codes, groupby, thinned)
    chosen = measured(scored, cells, groupby)
    sums = _deviances(stored, counts, decoded, chosen, others, progress=progress)
    result: dict[str, Any] = sums.shares() | {"n_cells": len(sums.per_cell)}
    if groupby is not None:
        result["groups"] = sums.by_group(codes[chosen], names)
    return result


def _of_modalities(
    mdata: MuData,
    stored: record.JointRecord,
    groupby: str | None,
    cells: Scored,
    thinned: float | None,
    layer: inputs.Layer,
    rng: Seed,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Of each modality, from the latent that all of them give."""
    if groupby is not None:
        msg = f"groupby={groupby!r}: groups are measured apart in one modality. Name it with modality=."
        raise ValueError(msg)
    views = {name: view for name, view in stored.views.items() if name in mdata.mod}
    judged = counts = {
        name: inputs.fitted_counts(mdata.mod[name], view, inputs.layer_of(layer, name)) for name, view in views.items()
    }
    state = record.state_of(mdata, stored)
    if thinned is not None:
        judged, state = _thinned_together(mdata, stored, counts, thinned, rng)
    found = []
    for name, view in views.items():
        adata, _ = inputs.modality_of(mdata, name)
        own = state.of_view(mdata.obs_names.get_indexer(adata.obs_names), stored.modalities.index(name))
        latent = _in_shown_frame(own, stored)
        library = own.library.astype(np.float64) * (1.0 if thinned is None else thinned)
        with inputs.told_whose(mdata, adata):
            decoded = _as_decoded(adata, view, judged[name], latent, library)
        scored, others = judged_by(adata, view, cells)
        scored = with_counts(view, decoded, scored)
        check_some(scored, np.full(adata.n_obs, -1), None, thinned)
        chosen = measured(scored, cells, groupby)
        found.append(_deviances(view, counts[name], decoded, chosen, others, progress=progress))
    shares = [one.shares() for one in found]
    return {
        "modalities": np.array(list(views), dtype=str),
        **{part: np.array([one[part] for one in shares]) for part in shares[0]},
        "n_cells": np.array([len(one.per_cell) for one in found]),
    }


def _deviances(
    stored: record.Record, counts: Source, decoded: Decoded, scored: Positions, others: Mask, *, progress: bool
) -> Deviances:
    """Of the scored cells, beside the null of the others."""
    from tqdm import tqdm

    from sc_ldvae import assess

    null = assess.null_proportions(stored.decoder.likelihood, counts, np.flatnonzero(others))
    # Every cell is passed twice.
    with tqdm(total=2 * len(scored), unit="cell", disable=not progress) as bar:
        return assess.Deviances.of(stored.shown_decoder, decoded, scored, null, bar)


def _decoded(adata: AnnData, stored: record.Record, counts: Source) -> Decoded:
    """Cells with their stored latent, in the frame in which the factors are shown."""
    state = record.state_of(adata, stored)
    library = state.library.astype(np.float64)
    return _as_decoded(adata, stored, counts, record.shown_latent(adata, stored), library)


def _as_decoded(adata: AnnData, stored: record.Record, counts: Source, latent: Floats, library: Floats) -> Decoded:
    from sc_ldvae.assess import Decoded

    obs = inputs.obs_of(adata)
    return Decoded(counts, latent, stored.design.matrix(obs), library, stored.groups(obs))


def _thinned(adata: AnnData, stored: record.Record, counts: Source, share: float, rng: Seed) -> Decoded:
    """Cells with a share of their counts, and the latent that the encoder makes of the others."""
    from sc_ldvae.counts import thinned
    from sc_ldvae.fit import posterior

    _check_thinned(stored, share)
    judged, kept = thinned(counts, share, np.random.default_rng(rng))
    scorable = inputs.encoder_of(adata, stored, kept)
    with scorable.scorer() as scorer:
        state = posterior(scorable.model, scorer, scorable.cells, scorable.everyone)
    return _as_decoded(adata, stored, judged, _in_shown_frame(state, stored), share * state.library.astype(np.float64))


def _in_shown_frame(state: record.State, stored: record.Record | record.JointRecord) -> Floats:
    latent = state.latent.astype(np.float64)
    return latent if stored.rotation is None else product(latent, stored.rotation)


def _thinned_together(
    mdata: MuData, stored: record.JointRecord, counts: Mapping[str, Source], share: float, rng: Seed
) -> tuple[dict[str, Source], record.State]:
    """A share of the counts of each modality, and what the encoders make of the others."""
    from sc_ldvae.counts import thinned
    from sc_ldvae.fit import posterior

    for view in stored.views.values():
        _check_thinned(view, share)
    generator = np.random.default_rng(rng)
    parts = {name: thinned(source, share, generator) for name, source in counts.items()}
    scorable = inputs.joint_encoder_of(mdata, stored, {name: kept for name, (_, kept) in parts.items()})
    with scorable.scorer() as scorer:
        state = posterior(scorable.model, scorer, scorable.cells, scorable.everyone)
    return {name: judged for name, (judged, _) in parts.items()}, state


def _check_thinned(stored: record.Record, share: float) -> None:
    if not 0 < share < 1:
        msg = f"thinned must be above 0 and below 1, but is {share}. Give the share of counts to judge by, such as 0.2."
        raise ValueError(msg)
    likelihood = stored.decoder.likelihood
    if likelihood.thresholded:
        msg = (
            f"thinned={share}, but the fit uns[{stored.keys.uns!r}] has gene_likelihood={likelihood.name!r}, and "
            "whether there are counts can't be split in two. Leave thinned out."
        )
        raise ValueError(msg)
