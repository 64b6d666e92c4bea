"""Writing into an AnnData, all of it or nothing."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from anndata import AnnData

from sc_ldvae._lazy import frame_of
from sc_ldvae._quiet import quiet
from sc_ldvae.record._file import check_view, has_file_to_write, write_to_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sc_ldvae._typing import Floats

_MISSING = object()


def write(adata: AnnData, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Set ``adata.<attribute>[key] = value`` for all ``entries[attribute][key]``, or leave `adata` as it was.

    A view becomes an actual object, as anndata does it, once all that is to stand in it has been accepted. The file of
    a backed object gets the same, if it is open for writing.
    """
    check_view(adata)
    _without_interrupts(lambda: _write_view(adata, entries) if adata.is_view else _write_actual(adata, entries))
    if has_file_to_write(adata):
        write_to_file(adata, entries)


def write_scores(adata: AnnData, key: str | None, values: Floats) -> float:
    """Their mean; with a key, ``obs[key]`` gets them."""
    if key is not None:
        write(adata, {"obs": {key: values}})
    return float(values.mean())


def _write_view(adata: AnnData, entries: Mapping[str, Mapping[str, Any]]) -> None:
    with quiet():
        actual = adata.copy()
    _write_actual(actual, entries)
    before = dict(vars(adata))
    try:
        # It says once more what names repeat.
        with quiet():
            AnnData.__init__(adata, actual)
    except BaseException:
        vars(adata).update(before)
        raise


def _write_actual(adata: AnnData, entries: Mapping[str, Mapping[str, Any]]) -> None:
    # A frame is swapped as a whole: pandas, interrupted while it sets a column, leaves blocks that nothing can read.
    frames = {
        name: frame_of(getattr(adata, name)).assign(**entries[name]) for name in entries if name in {"obs", "var"}
    }
    before, replaced = dict(vars(adata)), []
    # No context manager here either: once its end has begun, nothing is put back.
    try:
        for attribute, values in entries.items():
            if attribute in frames:
                setattr(adata, attribute, frames[attribute])
                continue
            mapping = getattr(adata, attribute)
            for key, value in values.items():
                replaced.append((mapping, key, mapping.get(key, _MISSING)))
                mapping[key] = value
    except BaseException:
        for one in replaced:
            _restore(*one)
        vars(adata).update(before)
        raise


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
