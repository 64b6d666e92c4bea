"""Several modalities of a MuData: found, matched by the names of their cells, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sc_ldvae._typing import UNSET
from sc_ldvae.counts import Cells, NotCountsError
from sc_ldvae.inputs._annotations import Annotations, annotations_of, size_factors
from sc_ldvae.inputs._counts import check_genes, counts_of, gene_mask
from sc_ldvae.inputs._modality import obs_of, of_raw, told_whose
from sc_ldvae.inputs._mudata import modality_of
from sc_ldvae.inputs._names import examples
from sc_ldvae.inputs._numbers import device_of
from sc_ldvae.inputs._request import check_model, check_no_size_factor, check_schedule
from sc_ldvae.likelihoods import LIKELIHOODS, Block
from sc_ldvae.record import Design, ObsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from sc_ldvae._typing import Mask
    from sc_ldvae.fit import Request
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
    with told_whose(mdata, mdata):
        annotations = annotations_of(mdata, replace(asked.columns, size_factor_key=None))
    of_each = []
    for one in modalities:
        with named(one.name):
            of_each.append(_own_cells(one))
    sized = any(one.size_factor_key is not None for one in modalities)
    model = replace(asked.model, use_observed_lib_size=asked.model.use_observed_lib_size or sized)
    cells = _together(modalities, of_each, annotations)
    blocks = Block.beside(
        (one.name, own.source.n_vars, one.gene_likelihood, one.dispersion)
        for one, own in zip(modalities, of_each, strict=True)
    )
    if len(modalities) == 1:
        # As if it were fitted alone.
        model = model.of_modality(blocks[0].gene_likelihood, blocks[0].dispersion)
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


def _own(given: Any, name: str, otherwise: Any) -> Any:  # noqa: ANN401  of any argument
    return given.get(name, otherwise) if isinstance(given, Mapping) else given


@contextmanager
def named(modality: str) -> Iterator[None]:
    """Sentences in which something ends say of which modality they are."""
    try:
        yield
    except NotCountsError as error:
        error.found = f"In modality {modality!r}, {error.found}"
        error.to_do = of_raw(error.to_do, modality, "make the MuData with")
        raise
    except (ValueError, TypeError) as error:
        msg = f"In modality {modality!r}: {of_raw(str(error), modality, 'make the MuData with')}"
        # Whose obs it is has been said then.
        raise (ValueError if isinstance(error, ObsError) else type(error))(msg) from error


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


def _own_cells(modality: Modality) -> Cells:
    """Counts of a modality, and the library of its cells where it is not their total."""
    has_library = LIKELIHOODS[modality.gene_likelihood].has_library
    source = counts_of(modality.adata, modality.layer, np.flatnonzero(modality.mask), may_be_empty=not has_library)
    obs, key = obs_of(modality.adata), modality.size_factor_key
    sizes = Annotations(obs, Design(), None, None if key is None else size_factors(obs, key), has_library=has_library)
    sizes = sizes.in_counts_of(source)
    modality.size_factor_unit = sizes.size_factor_unit
    return Cells(source, sizes.arrays())


def _together(modalities: Sequence[Modality], of_each: Sequence[Cells], annotations: Annotations) -> Cells:
    places, known = np.stack([one.places for one in modalities], 1), annotations.arrays()
    if len(modalities) > 1:
        return Cells.beside(of_each, places, known)
    (own,), (order,) = of_each, places.T
    own = own if np.array_equal(order, np.arange(own.n_obs)) else own.subset(order)
    return replace(own, annotations={**known, **own.annotations})
