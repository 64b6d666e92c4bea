"""The counts that were named, and which genes and cells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae._lazy import frame_of
from sc_ldvae._said import said
from sc_ldvae._typing import UNSET
from sc_ldvae.counts import NotCountsError, check_no_empty_cell
from sc_ldvae.inputs._modality import RAW_HOLDS_COUNTS, obs_of
from sc_ldvae.inputs._truth import truth_of
from sc_ldvae.record import ObsError, check_view
from sc_ldvae.stores import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sc_ldvae._typing import Mask, Positions, Unset
    from sc_ldvae.counts import Source

_FEWEST_CELLS = 2
# Cells that tell whether all are counts.
_LOOK = 1000


def check_object(adata: AnnData) -> None:
    """Refuse objects that can't be fitted whatever the other arguments are."""
    check_genes(adata)
    if adata.n_obs < _FEWEST_CELLS:
        msg = f"data has {adata.n_obs} cells, but a fit needs at least {_FEWEST_CELLS}."
        raise ValueError(msg)


def check_genes(adata: AnnData) -> None:
    """Refuse objects whose genes can't be told apart."""
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()][0]
        msg = f"var_names are not unique (for example {said(repeated)}). Call adata.var_names_make_unique() first."
        raise ValueError(msg)


def gene_mask(adata: AnnData, mask_var: Mask | Sequence[bool] | str | Unset | None) -> Mask:
    """Which genes to fit, n_vars."""
    name, advice, var = "mask_var", "", frame_of(adata.var)
    if mask_var is UNSET:
        mask_var = "highly_variable" if "highly_variable" in var else None
        advice = "To fit other genes, pass mask_var."
    if mask_var is None:
        return np.ones(adata.n_vars, dtype=bool)
    if isinstance(mask_var, str):
        if mask_var not in var:
            msg = f"mask_var={mask_var!r} is not a column of var. Columns: {', '.join(map(said, var)) or 'none'}."
            raise ValueError(msg)
        name = f"mask_var: var[{mask_var!r}]"
    values = var[mask_var] if isinstance(mask_var, str) else mask_var
    mask = truth_of(values, name, adata.n_vars, "genes", advice)
    if not mask.any():
        msg = "mask_var leaves no gene to fit. Pass mask_var=None to fit all genes."
        raise ValueError(msg)
    return mask


def counts_of(adata: AnnData, layer: str | None, genes: Positions, *, may_be_empty: bool = False) -> Source:
    """Checked counts of the genes at these positions, in their order.

    Raises
    ------
    ValueError, TypeError
        If they are not there, are no counts, or if a cell has none (unless it `may_be_empty`).
    """
    if layer is not None and layer not in adata.layers:
        # From anndata 0.13 on, X is the layer None.
        known = ", ".join(said(name) for name in list(adata.layers.keys()) if name is not None)
        hint = f" {RAW_HOLDS_COUNTS}" if _raw_holds_counts(adata) else ""
        msg = f"layer={layer!r} is not in layers. Layers: {known or 'none'}.{hint}"
        raise ValueError(msg)
    check_view(adata)
    name = "X" if layer is None else f"layers[{layer!r}]"
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        to_do = (
            RAW_HOLDS_COUNTS
            if _raw_holds_counts(adata)
            else "Name the layer that holds the counts, e.g. layer='counts'."
        )
        msg = f"X is empty. {to_do}"
        raise ValueError(msg)
    everything = np.array_equal(genes, np.arange(adata.n_vars))
    try:
        source = source_of(matrix, name, None if everything else genes)
    except NotCountsError as error:
        error.cell, error.gene = str(adata.obs_names[int(error.cell)]), str(adata.var_names[genes[int(error.gene)]])
        if _raw_holds_counts(adata):
            error.to_do = RAW_HOLDS_COUNTS
        raise
    if not may_be_empty:
        check_no_empty_cell(source.totals, adata.obs_names, source.n_vars, name)
    return source


def _raw_holds_counts(adata: AnnData) -> bool:
    try:
        return adata.raw is not None and bool(source_of(adata.raw.X[:_LOOK], "raw").n_obs)
    # A backed object may say that there is one, and not find it.
    except (TypeError, ValueError, AttributeError, KeyError):
        return False


def split(adata: AnnData, train_size: float | str, rng: np.random.Generator) -> Mask:
    """Which cells are held out, n_obs: a random share, or those that a column of obs says are not for training."""
    if isinstance(train_size, str):
        obs = obs_of(adata)
        if train_size not in obs:
            msg = f"train_size={train_size!r} must name a boolean column of obs (True: train) or be a number up to 1."
            raise ObsError(msg)
        name = f"train_size: obs[{train_size!r}]"
        try:
            held_out = ~truth_of(obs[train_size], name, adata.n_obs, "cells", "True: train.")
        except ValueError as error:
            raise ObsError(str(error)) from error
    else:
        if not 0 < train_size <= 1:
            msg = f"train_size must be above 0 and at most 1, but is {train_size}."
            raise ValueError(msg)
        held_out = np.zeros(adata.n_obs, dtype=bool)
        held_out[rng.permutation(adata.n_obs)[: round((1 - train_size) * adata.n_obs)]] = True
    n_training = int((~held_out).sum())
    if n_training < _FEWEST_CELLS:
        msg = f"train_size={train_size!r} leaves {n_training} of {adata.n_obs} cells for training; raise it."
        raise ValueError(msg)
    return held_out
