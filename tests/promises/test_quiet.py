"""Warnings of other packages are kept in, and no thread leaves its filters in the process."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest

import sc_ldvae
from sc_ldvae._quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def _eager_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(call: Callable[[], object], n: int = 6) -> None:
    start = Barrier(n)

    def run() -> None:
        start.wait()
        for _ in range(20):
            call()

    threads = [Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def warned() -> None:
    with quiet():
        warnings.warn("of another package", UserWarning, stacklevel=2)


def test_it_keeps_warnings_in() -> None:
    warned()
    with quiet(), quiet():
        warned()
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=2)


@pytest.mark.usefixtures("_eager_threads")
def test_threads_leave_no_filter() -> None:
    before = list(warnings.filters)
    in_threads(warned)
    assert warnings.filters == before


def test_nobody_else_touches_filters() -> None:
    """What is done to them in one place can be guarded in one place."""
    source = Path(sc_ldvae.__file__).parent
    touching = ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings")
    found = {path.name for path in source.rglob("*.py") if any(name in path.read_text() for name in touching)}
    assert found == {"_quiet.py"}
