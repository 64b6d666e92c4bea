"""A stored joint fit and the counts of a MuData, brought together for what needs both."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sc_ldvae._said import said
from sc_ldvae.counts import Cells, InMemory
from sc_ldvae.inputs._annotations import Annotations
from sc_ldvae.inputs._joint import named
from sc_ldvae.inputs._layer import Layer, layer_of
from sc_ldvae.inputs._modality import obs_of, told_whose
from sc_ldvae.inputs._mudata import check_mudata, modality_of
from sc_ldvae.inputs._numbers import device_of
from sc_ldvae.inputs._stored import MissingGenes, Scorable, check_missing_genes, fitted_counts, sized
from sc_ldvae.likelihoods import Block
from sc_ldvae.record import check_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from mudata import MuData
    from numpy.typing import NDArray

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
    with told_whose(mdata, mdata):
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

    of_each: list[Cells] = []
    places = np.full((mdata.n_obs, len(stored.modalities)), -1, np.int64)
    for i, (name, view) in enumerate(stored.views.items()):
        if name not in of_modalities:
            of_each.append(_nothing(view))
            continue
        adata, places[:, i] = modality_of(mdata, name)
        with named(name):
            of_each.append(sized(adata, view, of_modalities[name]))
    _check_some(mdata, stored, places)
    cells = Cells.beside(of_each, places, known)
    return Scorable(unfolded([view.folded for view in stored.views.values()]), cells)


def _nothing(view: Record) -> Cells:
    return Cells(InMemory(csr_matrix((0, len(view.genes)), dtype=np.float32)))


def _check_some(mdata: MuData, stored: JointRecord, places: NDArray[np.int64]) -> None:
    none = (places < 0).all(1)
    if none.any():
        names = ", ".join(map(repr, stored.modalities))
        example = said(mdata.obs_names[none][0])
        msg = (
            f"{none.sum()} of {len(none)} cells (for example {example}) have none of the modalities of the fit: "
            f"{names}. Take them out."
        )
        raise ValueError(msg)


def joint_request_of_record(mdata: MuData, stored: JointRecord, layer: Layer, device: str | torch.device) -> Request:
    """What a stored joint fit was asked for, on the cells of `mdata`."""
    from sc_ldvae.fit import Request

    first = stored.first
    known = ((name, len(view.genes), view.blocks[0]) for name, view in stored.views.items())
    blocks = Block.beside((name, n, block.gene_likelihood, block.dispersion) for name, n, block in known)
    cells = for_joint_likelihood(mdata, stored, layer).cells
    # One without a library does not tell whether that of others is observed.
    telling = next((view for view in stored.views.values() if view.has_library), first)
    return Request(
        cells,
        telling.options,
        first.levels,
        first.schedule,
        device_of(device),
        blocks=blocks,
        weights=stored.weights,
        hide_modality=stored.hide_modality,
    )
