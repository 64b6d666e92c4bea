"""What a fit is asked for, checked: by arguments, or again as a record says."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_ldvae._memory import check_memory
from sc_ldvae._options import ModelOptions, Schedule
from sc_ldvae.counts import Cells
from sc_ldvae.inputs._annotations import Annotations, Columns, annotations_of
from sc_ldvae.inputs._counts import counts_of
from sc_ldvae.inputs._numbers import check_loadings_prior, check_lr, check_whole, device_of
from sc_ldvae.inputs._stored import annotations_of_record, fitted_counts
from sc_ldvae.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from anndata import AnnData

    from sc_ldvae._typing import Mask, Unset
    from sc_ldvae.fit import Request
    from sc_ldvae.record import Record


class Options(NamedTuple):
    """What :func:`sc_ldvae.tl.ldvae` is asked beside the object and the cells to train on."""

    columns: Columns = Columns()
    model: ModelOptions = ModelOptions()
    schedule: Schedule = Schedule()
    layer: str | None = None
    device: str | torch.device = "auto"

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Arguments by name; the defaults for others.

        Raises
        ------
        TypeError
            If one is unknown.
        """
        groups: dict[str, type] = {"columns": Columns, "model": ModelOptions, "schedule": Schedule}
        names = {name: {field.name for field in fields(group)} - {"n_latent"} for name, group in groups.items()}
        known = {"layer", "device"}.union(*names.values())
        unknown = [name for name in arguments if name not in known]
        if unknown:
            msg = f"{unknown[0]!r} is no argument that fits to halves take. They take {', '.join(sorted(known))}."
            raise TypeError(msg)
        filled = {
            name: group(**{one: arguments[one] for one in arguments if one in names[name]})
            for name, group in groups.items()
        }
        return cls(**filled, **{name: arguments[name] for name in ("layer", "device") if name in arguments})


def request_of(adata: AnnData, mask: Mask, asked: Options) -> tuple[Request, Annotations]:
    """What the arguments of `tl.ldvae` ask for, with `mask` for the genes to fit, and what is known of the cells.

    Raises
    ------
    ValueError, TypeError
        If one of them does not fit the data.
    """
    from sc_ldvae.fit import Request

    model, schedule = asked.model, asked.schedule
    check_schedule(schedule)
    check_model(model, int(mask.sum()))
    has_library = _has_library(model, asked.columns)
    annotations = replace(annotations_of(adata, asked.columns), has_library=has_library)
    source = counts_of(adata, asked.layer, np.flatnonzero(mask), may_be_empty=not has_library)
    annotations = annotations.in_counts_of(source)
    observed = model.use_observed_lib_size or annotations.size_factor is not None or not has_library
    model = replace(model, n_latent=int(model.n_latent), use_observed_lib_size=bool(observed))
    cells = Cells(source, annotations.arrays())
    return Request(cells, model, annotations.levels, schedule, device_of(asked.device)), annotations


def _has_library(model: ModelOptions, columns: Columns) -> bool:
    """Whether the likelihood has one; refuses size factors for one that has none. Of unknown ones others tell."""
    known = LIKELIHOODS.get(model.gene_likelihood)
    has_library = known is None or known.has_library
    if not has_library:
        check_no_size_factor(columns.size_factor_key, model.gene_likelihood)
    return has_library


def check_no_size_factor(size_factor_key: str | None, gene_likelihood: str) -> None:
    """Refuse size factors for a likelihood without a library."""
    if size_factor_key is not None:
        msg = (
            f"size_factor_key={size_factor_key!r} was given, but gene_likelihood={gene_likelihood!r} has no library "
            "that size factors could stand for. Leave it out."
        )
        raise ValueError(msg)


def check_schedule(schedule: Schedule) -> None:
    """Refuse numbers that no training can have."""
    check_whole(max_epochs=schedule.max_epochs, batch_size=schedule.batch_size)
    check_lr(schedule.lr)
    check_loadings_prior(schedule.loadings_prior)


def check_model(model: ModelOptions, n_genes: int) -> None:
    """Refuse encoders that would not fit into memory: weights, gradients and two moments, twice with the library's."""
    check_whole(n_hidden=model.n_hidden, n_layers_encoder=model.n_layers_encoder)
    weights = 2 * n_genes * model.n_hidden + (model.n_layers_encoder - 1) * model.n_hidden**2
    sizes = f"n_hidden={model.n_hidden}, n_layers_encoder={model.n_layers_encoder}"
    check_memory(4 * 4 * weights, f"A model with {sizes} and {n_genes} genes", "Lower n_hidden.")


def request_of_record(adata: AnnData, stored: Record, layer: str | Unset | None, device: str | torch.device) -> Request:
    """What a stored fit was asked for, on the cells of `adata`."""
    from sc_ldvae.fit import Request

    source, annotations = fitted_counts(adata, stored, layer), annotations_of_record(adata, stored)
    cells = Cells(source, annotations.arrays())
    return Request(cells, stored.options, annotations.levels, stored.schedule, device_of(device))
