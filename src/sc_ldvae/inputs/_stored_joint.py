"""A stored joint fit and the counts of a MuData, brought together for what needs both."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sc_ldvae.counts import PRESENT, Beside, Cells, InMemory
from sc_ldvae.inputs._annotations import Annotations
from sc_ldvae.inputs._joint import named
from sc_ldvae.inputs._layer import Layer, layer_of
from sc_ldvae.inputs._modality import obs_of
from sc_ldvae.inputs._mudata import check_mudata, modality_of
from sc_ldvae.inputs._numbers import device_of
from sc_ldvae.inputs._stored import MissingGenes, Scorable, check_missing_genes, fitted_counts, size_factors_of
from sc_ldvae.likelihoods import Block
from sc_ldvae.record import check_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from mudata import MuData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Floats
    from sc_ldvae.counts import Source
    from sc_ldvae.fit import Request
    from sc_ldvae.record import JointRecord, Record


def for_joint_encoder(mdata: MuData, stored: JointRecord, layer: Layer, missing_genes: MissingGenes) -> Scorable:
    """The model and the cells of those modalities that `mdata` has; others are missing.

    Raises
    ------
    ValueError
        If it has none of them, or a cell has none.
    """
    check_missing_genes(missing_genes)
    return _scorable(mdata, stored, layer, missing_genes, {})


def for_joint_likelihood(mdata: MuData, stored: JointRecord, layer: Layer) -> Scorable:
    """The same with all that the likelihood depends on."""
    first = stored.first
    known = Annotations(obs_of(mdata), first.design, first.labels, None).arrays()
    return _scorable(mdata, stored, layer, "error", known)


def _scorable(
    mdata: MuData, stored: JointRecord, layer: Layer, missing_genes: MissingGenes, known: Mapping[str, NDArray[Any]]
) -> Scorable:
    check_mudata(mdata, "a joint fit")
    check_cells(mdata)
    sources = {}
    for name, view in stored.views.items():
        if name in mdata.mod:
            with named(name):
                sources[name] = fitted_counts(mdata.mod[name], view, layer_of(layer, name), missing_genes)
    return joint_encoder_of(mdata, stored, sources, known)


def joint_encoder_of(
    mdata: MuData,
    stored: JointRecord,
    of_modalities: Mapping[str, Source],
    known: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> Scorable:
    """The same for counts that are at hand, of the fitted genes."""
    from sc_ldvae.fit import unfolded

    sources: list[Source] = []
    libraries: list[Floats] = []
    places = np.full((mdata.n_obs, len(stored.modalities)), -1, np.int64)
    for i, (name, view) in enumerate(stored.views.items()):
        source, library = _nothing(view), np.zeros(0, np.float32)
        if name in of_modalities:
            source = of_modalities[name]
            adata, places[:, i] = modality_of(mdata, name)
            with named(name):
                factors, unit = size_factors_of(adata, view)
            if not view.has_library:
                library = np.ones(source.n_obs, np.float32)
            else:
                library = np.asarray(source.totals if factors is None else factors * unit, np.float32)
        sources.append(source)
        libraries.append(library)
    _check_some(mdata, stored, places)
    own = {PRESENT: places >= 0, "size_factor": _by_cell(libraries, places)}
    cells = Cells(Beside(tuple(sources), places), {**known, **own})
    return Scorable(unfolded([view.folded for view in stored.views.values()]), cells)


def _nothing(view: Record) -> Source:
    return InMemory(csr_matrix((0, len(view.genes)), dtype=np.float32))


def _by_cell(libraries: list[Floats], places: NDArray[np.int64]) -> Floats:
    """Library of each cell in each modality, missing where it lacks one."""
    of_cells = np.full(places.shape, np.nan, np.float32)
    for i, library in enumerate(libraries):
        has = places[:, i] >= 0
        of_cells[has, i] = library[places[has, i]]
    return of_cells


def _check_some(mdata: MuData, stored: JointRecord, places: NDArray[np.int64]) -> None:
    none = (places < 0).all(1)
    if none.any():
        names = ", ".join(map(repr, stored.modalities))
        msg = (
            f"{none.sum()} of {len(none)} cells (for example {mdata.obs_names[none][0]!r}) have none of the modalities "
            f"of the fit: {names}. Take them out."
        )
        raise ValueError(msg)


def joint_request_of_record(mdata: MuData, stored: JointRecord, layer: Layer, device: str | torch.device) -> Request:
    """What a stored joint fit was asked for, on the cells of `mdata`."""
    from sc_ldvae.fit import Request

    first, stop, blocks = stored.first, 0, []
    for name, view in stored.views.items():
        start, stop = stop, stop + len(view.genes)
        (own,) = view.blocks
        blocks.append(Block(name, start, stop, own.gene_likelihood, own.dispersion))
    cells = for_joint_likelihood(mdata, stored, layer).cells
    # One without a library does not tell whether that of others is observed.
    telling = next((view for view in stored.views.values() if view.has_library), first)
    return Request(
        cells,
        telling.options,
        first.levels,
        first.schedule,
        device_of(device),
        blocks=tuple(blocks),
        weights=stored.weights,
        hide_modality=stored.hide_modality,
    )
