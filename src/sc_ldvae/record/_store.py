"""Writing into an AnnData, or a MuData and its modalities, all of it or nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

from sc_ldvae._lazy import frame_of
from sc_ldvae._quiet import quiet
from sc_ldvae.record._file import check_view, has_file_to_write, write_to_file

if TYPE_CHECKING:
    from mudata import MuData

    from sc_ldvae._typing import Data, Floats, Positions

Entries: TypeAlias = Mapping[str, Mapping[str, Any]]
Undo: TypeAlias = list[Callable[[], object]]

_MISSING = object()


class OfModalities(NamedTuple):
    """What is to stand in varm of a MuData."""

    rows: Mapping[str, Floats]
    """Of the genes of some modalities, by their names."""
    fill: float
    """What genes of the others have."""


def write(adata: Data, entries: Entries, var_names: pd.Index[str] | None = None) -> None:
    """Set ``adata.<attribute>[key] = value`` for all ``entries[attribute][key]``, or leave `adata` as it was.

    With `var_names`, the genes of an AnnData get these names. A view becomes an actual object, as anndata does it, once
    all that is to stand in it has been accepted. The file of a backed object gets the same, if it is open for writing.
    """
    if not isinstance(adata, AnnData):
        write_joint(adata, entries, {})
        return
    check_view(adata)

    def work(undo: Undo) -> None:
        _write_any(adata, entries, undo)
        if var_names is not None:
            undo.append(partial(setattr, adata, "var_names", adata.var_names))
            adata.var_names = var_names  # type: ignore[assignment]  # mypy takes the getter's type for another

    _without_interrupts(lambda: _all_or_nothing(work))
    if has_file_to_write(adata):
        write_to_file(adata, entries)


def write_joint(mdata: MuData, of_all: Entries, of_modalities: Mapping[str, Entries]) -> None:
    """The same for a MuData and some of its modalities: all of them, or none.

    What stands in varm ``of_all`` is given as `OfModalities`.
    """
    for name in of_modalities:
        check_view(mdata.mod[name])
    _without_interrupts(lambda: _all_or_nothing(lambda undo: _write_together(mdata, of_all, of_modalities, undo)))
    for name, entries in of_modalities.items():
        if has_file_to_write(mdata.mod[name]):
            write_to_file(mdata.mod[name], entries)


def _all_or_nothing(work: Callable[[Undo], None]) -> None:
    """Let `work` change objects; what it notes to be done undoes that, last things first, if it fails."""
    undo: Undo = []
    # No context manager here either: once its end has begun, nothing is put back.
    try:
        work(undo)
    except BaseException:
        while undo:
            undo.pop()()
        raise


def _write_together(mdata: MuData, of_all: Entries, of_modalities: Mapping[str, Entries], undo: Undo) -> None:
    if mdata.is_view:
        # Its modalities are replaced as it becomes an actual object, as mudata does where something is set in it.
        undo.append(partial(vars(mdata).update, dict(vars(mdata))))
        names = mdata.obs_names
        with quiet():
            # Not its own: mudata before 0.4 brings the cells of what it copies into another order.
            mdata.obs = pd.DataFrame(mdata.copy().obs)
        if not names.equals(mdata.obs_names):
            of_all = _reordered(of_all, names.get_indexer(mdata.obs_names))
    for name, entries in of_modalities.items():
        _write_any(mdata.mod[name], entries, undo)
    varm = {key: _laid_out(mdata, one) for key, one in of_all.get("varm", {}).items()}
    _write_actual(mdata, {**of_all, "varm": varm}, undo)


def _reordered(entries: Entries, cells: Positions) -> Entries:
    """The entries for cells at these positions."""
    of_cells = {name: {key: one[cells] for key, one in entries[name].items()} for name in entries if name[:3] == "obs"}
    return {**entries, **of_cells}


def _laid_out(mdata: MuData, of_modalities: OfModalities) -> Floats:
    """Rows for the genes of all modalities, in the order that the MuData has them."""
    width = max(rows.shape[1] for rows in of_modalities.rows.values())
    laid_out: Floats = np.full((mdata.n_vars, width), of_modalities.fill, np.float32)
    for name, rows in of_modalities.rows.items():
        # Positions from 1 on; 0 are those of other modalities.
        places = np.asarray(mdata.varmap[name], np.int64).ravel()
        laid_out[places > 0] = rows[places[places > 0] - 1]
    return laid_out


def _write_any(adata: AnnData, entries: Entries, undo: Undo) -> None:
    if not adata.is_view:
        _write_actual(adata, entries, undo)
        return
    with quiet():
        actual = adata.copy()
    _write_actual(actual, entries, [])
    undo.append(partial(vars(adata).update, dict(vars(adata))))
    # It says once more what names repeat.
    with quiet():
        AnnData.__init__(adata, actual)


def _write_actual(data: Data, entries: Entries, undo: Undo) -> None:
    # A frame is swapped as a whole: pandas, interrupted while it sets a column, leaves blocks that nothing can read.
    frames = {name: frame_of(getattr(data, name)).assign(**entries[name]) for name in entries if name in {"obs", "var"}}
    undo.append(partial(vars(data).update, dict(vars(data))))
    for attribute, values in entries.items():
        if attribute in frames:
            setattr(data, attribute, frames[attribute])
            continue
        mapping = getattr(data, attribute)
        for key, value in values.items():
            undo.append(partial(_restore, mapping, key, mapping.get(key, _MISSING)))
            mapping[key] = value


def _without_interrupts(work: Callable[[], None]) -> None:
    """Let an interrupt of the keyboard wait until the work is done.

    No context manager: while Python enters the end of one, whatever strikes leaves the setting as it is.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        # Signals reach the main thread alone.
        work()
        return
    waiting: list[tuple[Any, ...]] = []
    try:
        try:
            signal.signal(signal.SIGINT, lambda *told: waiting.append(told))
            work()
        finally:
            signal.signal(signal.SIGINT, handler)
    finally:
        # Once more, for what strikes in the line before.
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[-1])


def _restore(mapping: Any, key: str, value: Any) -> None:  # noqa: ANN401  any of anndata's mappings and values
    if value is not _MISSING:
        mapping[key] = value
    elif key in mapping:
        del mapping[key]
