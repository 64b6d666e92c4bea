"""Several modalities of a MuData: found, matched by the names of their cells, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from anndata import AnnData

from sc_ldvae._typing import UNSET
from sc_ldvae.counts import PRESENT, Beside, Cells, NotCountsError
from sc_ldvae.inputs._annotations import annotations_of, size_factors
from sc_ldvae.inputs._counts import check_genes, counts_of, gene_mask
from sc_ldvae.inputs._modality import is_mudata, obs_of
from sc_ldvae.inputs._names import examples
from sc_ldvae.inputs._numbers import device_of
from sc_ldvae.inputs._request import check_model, check_no_size_factor, check_schedule
from sc_ldvae.likelihoods import LIKELIHOODS, Block
from sc_ldvae.record import fits_in, joint_fits_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mudata import MuData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Data, Floats, Mask
    from sc_ldvae.counts import Source
    from sc_ldvae.fit import Request
    from sc_ldvae.inputs._annotations import Annotations
    from sc_ldvae.inputs._request import Options

# Likelihoods by the name of the modality, or names.
Modalities: TypeAlias = Mapping[str, str] | Sequence[str]
# Something of each modality by its name.
PerModality: TypeAlias = Mapping[str, Any]


@dataclass
class Modality:
    """A modality of a joint fit, as it was asked for."""

    name: str
    adata: AnnData
    places: NDArray[np.int64]
    """Position in it of each cell of the MuData, -1 where it is not."""
    gene_likelihood: str
    dispersion: str
    layer: str | None
    mask: Mask
    mask_var: Any
    """As it was given."""
    size_factor_key: str | None
    weight: float
    size_factor_unit: float = 1.0
    """Counts that a size factor of one stands for."""


def check_mudata(data: Data, argument: str) -> MuData:
    """Refuse what has no modalities, or other ones than of the same cells.

    Raises
    ------
    TypeError
        If `data` is no MuData.
    ValueError
        If its modalities share genes in place of cells, or it does not know their cells.
    """
    if not is_mudata(data):
        msg = f"{argument} was given, but data is a {type(data).__name__}. Pass a MuData, or leave it out."
        raise TypeError(msg)
    mdata: Any = data
    if getattr(mdata, "axis", 0) != 0:
        msg = (
            f"data is a MuData whose modalities share axis {mdata.axis}, but a joint fit needs those of the same cells."
        )
        raise ValueError(msg)
    if not mdata.obs_names.is_unique:
        repeated = mdata.obs_names[mdata.obs_names.duplicated()][0]
        msg = f"obs_names of the MuData are not unique (for example {repeated!r}). Give each cell its own name."
        raise ValueError(msg)
    return mdata


def modality_of(mdata: MuData, name: str) -> tuple[AnnData, NDArray[np.int64]]:
    """A modality, and the position in it of each cell of the MuData, -1 where it is not: by name.

    Raises
    ------
    ValueError, TypeError
        If there is no such modality, or if its cells can't be found by their names.
    """
    if name not in mdata.mod:
        msg = f"modalities: {name!r} is not in the MuData. Name some of {', '.join(map(repr, mdata.mod))}."
        raise ValueError(msg)
    adata = mdata.mod[name]
    if not isinstance(adata, AnnData):
        msg = f"modalities: {name!r} is a {type(adata).__name__}, but must be an AnnData."
        raise TypeError(msg)
    if not adata.obs_names.is_unique:
        repeated = adata.obs_names[adata.obs_names.duplicated()][0]
        msg = f"obs_names of modality {name!r} are not unique (for example {repeated!r}). Give each cell its own name."
        raise ValueError(msg)
    strangers = adata.obs_names[mdata.obs_names.get_indexer(adata.obs_names) < 0]
    if len(strangers):
        msg = (
            f"{len(strangers)} cells of modality {name!r} ({examples(strangers.to_numpy())}) are not in obs_names of "
            "the MuData. Was it changed afterwards? Call mdata.update()."
        )
        raise ValueError(msg)
    return adata, adata.obs_names.get_indexer(mdata.obs_names).astype(np.int64)


def modalities_of(
    mdata: MuData,
    modalities: Modalities,
    asked: Options,
    *,
    layer: Any = None,  # noqa: ANN401  one value or a mapping, as the next two
    mask_var: Any = UNSET,  # noqa: ANN401
    size_factor_key: Any = None,  # noqa: ANN401
    weights: Mapping[str, float] | None = None,
) -> list[Modality]:
    """The modalities of a joint fit, each with what is asked of it.

    Raises
    ------
    ValueError, TypeError
        If one of them is not there, or something that is asked of it does not fit.
    """
    if isinstance(modalities, Mapping):
        likelihoods = dict(modalities)
    else:
        likelihoods = dict.fromkeys(modalities, asked.model.gene_likelihood)
    if not likelihoods:
        msg = "modalities is empty. Name at least one, such as {'rna': 'nb', 'prot': 'nb_background'}."
        raise ValueError(msg)
    for argument, given in (
        ("layer", layer),
        ("mask_var", mask_var),
        ("size_factor_key", size_factor_key),
        ("modality_weights", weights),
    ):
        unknown = [name for name in given if name not in likelihoods] if isinstance(given, Mapping) else []
        if unknown:
            known = ", ".join(map(repr, likelihoods))
            msg = f"{argument} names {unknown[0]!r}, which is none of the modalities of the fit: {known}."
            raise ValueError(msg)
    found = []
    for name, likelihood in likelihoods.items():
        if "/" in name:
            msg = f"modalities: {name!r} can't name an entry of a file. Rename the modality to a name without '/'."
            raise ValueError(msg)
        if likelihood not in LIKELIHOODS:
            known = ", ".join(map(repr, LIKELIHOODS))
            msg = f"modalities: gene_likelihood={likelihood!r} of {name!r} is unknown. Choose one of {known}."
            raise ValueError(msg)
        weight = 1.0 if weights is None else float(weights.get(name, 1.0))
        if not 0 < weight < np.inf:
            msg = f"modality_weights: that of {name!r} must be above 0 and finite, but is {weight}."
            raise ValueError(msg)
        adata, places = modality_of(mdata, name)
        genes = _own(mask_var, name, UNSET)
        with named(name):
            check_genes(adata)
            mask = gene_mask(adata, genes)
            sizes = _own(size_factor_key, name, None)
            if not LIKELIHOODS[likelihood].has_library:
                check_no_size_factor(sizes, likelihood)
        own = _own(layer, name, None), mask, genes, sizes
        found.append(Modality(name, adata, places, likelihood, asked.model.dispersion, *own, weight))
    _check_cells(mdata, found)
    return found


def joint_request_of(
    mdata: MuData, modalities: Sequence[Modality], asked: Options, hide_modality: float
) -> tuple[Request, Annotations]:
    """What a joint fit is asked for, and what is known of the cells.

    Raises
    ------
    ValueError, TypeError
        If something does not fit the data.
    """
    from sc_ldvae.fit import Request

    if not 0 <= hide_modality < 1:
        msg = f"hide_modality must be at least 0 and below 1, but is {hide_modality}."
        raise ValueError(msg)
    check_schedule(asked.schedule)
    check_model(asked.model, max(int(one.mask.sum()) for one in modalities))
    annotations = annotations_of(mdata, replace(asked.columns, size_factor_key=None))
    sources = []
    for one in modalities:
        with named(one.name):
            genes, may_be_empty = np.flatnonzero(one.mask), not LIKELIHOODS[one.gene_likelihood].has_library
            sources.append(counts_of(one.adata, one.layer, genes, may_be_empty=may_be_empty))
    sized = any(one.size_factor_key is not None for one in modalities)
    model = replace(asked.model, use_observed_lib_size=asked.model.use_observed_lib_size or sized)
    cells, blocks = _cells(modalities, sources, annotations), tuple(_blocks(modalities, sources))
    if len(modalities) == 1:
        # As if it were fitted alone.
        model = blocks[0].options(model)
        if not LIKELIHOODS[model.gene_likelihood].has_library:
            model = replace(model, use_observed_lib_size=True)
        return Request(cells, model, annotations.levels, asked.schedule, device_of(asked.device)), annotations
    request = Request(
        cells,
        model,
        annotations.levels,
        asked.schedule,
        device_of(asked.device),
        blocks=blocks,
        weights=tuple(one.weight for one in modalities),
        hide_modality=hide_modality,
    )
    return request, annotations


def check_free(mdata: MuData, key: str, modalities: Sequence[str]) -> None:
    """Refuse to write a joint fit over one of a modality alone.

    Raises
    ------
    ValueError
        If there is such a fit.
    """
    taken = [name for name in modalities if key in fits_in(mdata.mod[name]) and not is_view(mdata, key, name)]
    if taken:
        msg = (
            f"key_added={key!r}: modality {taken[0]!r} has a fit of its own under this name. Give the joint fit "
            f"another name (key_added), or remove that one: del mdata[{taken[0]!r}].uns[{key!r}]."
        )
        raise ValueError(msg)


def is_view(mdata: MuData, key: str, modality: str) -> bool:
    """Whether the fit of a modality under this key is part of a joint one."""
    joint = joint_fits_in(mdata).get(key)
    return joint is not None and modality in joint["views"]


def _own(given: Any, name: str, otherwise: Any) -> Any:  # noqa: ANN401  of any argument
    return given.get(name, otherwise) if isinstance(given, Mapping) else given


@contextmanager
def named(modality: str) -> Iterator[None]:
    """Sentences in which something ends say of which modality they are."""
    try:
        yield
    except NotCountsError as error:
        error.found = f"In modality {modality!r}, {error.found}"
        raise
    except (ValueError, TypeError) as error:
        msg = f"In modality {modality!r}: {error}"
        raise type(error)(msg) from error


def _check_cells(mdata: MuData, modalities: Sequence[Modality]) -> None:
    """Refuse cells that have none of the modalities."""
    none = np.all([one.places < 0 for one in modalities], axis=0)
    if none.any() and len(modalities) == 1:
        msg = f"Some cells lack {modalities[0].name!r}. To fit it alone, on its own cells, pass modality= instead."
        raise ValueError(msg)
    if none.any():
        names = ", ".join(repr(one.name) for one in modalities)
        msg = (
            f"{none.sum()} of {len(none)} cells ({examples(mdata.obs_names[none].to_numpy())}) have none of the "
            f"modalities of the fit ({names}). Take them out, or name further modalities."
        )
        raise ValueError(msg)


def _cells(modalities: Sequence[Modality], sources: Sequence[Source], annotations: Annotations) -> Cells:
    places = np.stack([one.places for one in modalities], 1)
    of_cells = annotations.arrays()
    libraries = [_library(one, source) for one, source in zip(modalities, sources, strict=True)]
    if len(modalities) == 1:
        (library,) = libraries
        given = modalities[0].size_factor_key is not None or not LIKELIHOODS[modalities[0].gene_likelihood].has_library
        sizes = {"size_factor": library[places[:, 0]]} if given else {}
        source = sources[0]
        in_order = np.array_equal(places[:, 0], np.arange(source.n_obs))
        cells = Cells(source, {})
        return replace(cells if in_order else cells.subset(places[:, 0]), annotations=of_cells | sizes)
    library = np.full(places.shape, np.nan, np.float32)
    for i, own in enumerate(libraries):
        has = places[:, i] >= 0
        library[has, i] = own[places[has, i]]
    return Cells(Beside(tuple(sources), places), {**of_cells, PRESENT: places >= 0, "size_factor": library})


def _library(modality: Modality, source: Source) -> Floats:
    """Observed library of each cell of a modality: total counts, or size factors with the same mean; 1 without one."""
    if not LIKELIHOODS[modality.gene_likelihood].has_library:
        return np.ones(source.n_obs, np.float32)
    if modality.size_factor_key is None:
        return source.totals.astype(np.float32)
    factors = size_factors(obs_of(modality.adata), modality.size_factor_key)
    modality.size_factor_unit = float(source.totals.sum() / source.n_obs / factors.mean())
    return (factors * modality.size_factor_unit).astype(np.float32)


def _blocks(modalities: Sequence[Modality], sources: Sequence[Source]) -> list[Block]:
    stops = np.cumsum([source.n_vars for source in sources]).tolist()
    starts = [0, *stops[:-1]]
    return [
        Block(one.name, start, stop, one.gene_likelihood, one.dispersion)
        for one, start, stop in zip(modalities, starts, stops, strict=True)
    ]
