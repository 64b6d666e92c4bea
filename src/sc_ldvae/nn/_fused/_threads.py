"""How many threads the kernels use."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numba
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

# A thread is worth its start for so many elementary operations.
_WORTH = 32_768


@contextmanager
def as_many_threads_as_torch() -> Iterator[None]:
    """Let numba use as many threads as torch does, in this thread of Python and within the context only."""
    n_threads, before = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))
    # At its start numba's pool sets the number of OpenMP's threads, which is torch's, too.
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def n_parts(work: int) -> int:
    """Parts into which a kernel cuts so many elementary operations: one for each thread, fewer if that pays better."""
    return max(1, min(numba.get_num_threads(), work // _WORTH))
