"""Settings of a process that are put back, whatever happens."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@contextmanager
def restored() -> Iterator[list[Callable[[], object]]]:
    """What is put into the list before a setting is changed is called at the end; it bears to be repeated."""
    undo: list[Callable[[], object]] = []
    try:
        try:
            yield undo
        finally:
            _call(undo)
    finally:
        # Once more, for the interrupt that strikes while it is called.
        _call(undo)


def _call(functions: Iterable[Callable[[], object]]) -> None:
    for function in functions:
        function()
