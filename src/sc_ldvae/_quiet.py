"""Warnings of other packages that nobody who calls this one can mend."""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Filters of warnings belong to the process: two threads that put them back in the wrong order leave one behind.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep them in. For what gives no other way: other threads wait, and their own warnings are lost meanwhile."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
