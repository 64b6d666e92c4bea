"""How many threads the kernels use, and into how many parts they cut their work."""

from __future__ import annotations

from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numba
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

# A part is worth its start for so many elementary operations.
_WORTH = 32_768
_MOST = 16
_TRIALS, _BETWEEN_TRIALS = 4, 128


@contextmanager
def as_many_threads_as_torch() -> Iterator[None]:
    """Let numba use as many threads as torch does, in this thread of Python and within the context only."""
    n_threads, before = torch.get_num_threads(), numba.get_num_threads()
    numba.set_num_threads(min(n_threads, _largest()))
    # At its start numba's pool sets the number of OpenMP's threads, which is torch's, too.
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _largest() -> int:
    most: int = vars(numba.config)["NUMBA_NUM_THREADS"]
    return most


def n_parts(work: int) -> int:
    """Parts into which a kernel cuts so many elementary operations: a power of two.

    Not a matter of the number of threads: sums over parts come out the same to the bit for any number of them.
    """
    return min(_MOST, 1 << max(0, int(work // _WORTH).bit_length() - 1))


class Pace:
    """All threads or one, whichever is faster now.

    Threads that wait for each other at the end of every kernel are many times slower than one if something else keeps
    one of the cores busy. So both are tried from time to time.
    """

    def __init__(self) -> None:
        self._n_threads = numba.get_num_threads()
        self._n_steps = 0
        self._seconds: dict[int, list[float]] = {}

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step on the threads that its turn asks for."""
        turn = self._n_steps % _BETWEEN_TRIALS
        if turn == 0:
            self._seconds = {self._n_threads: [], 1: []}
        if turn < 2 * _TRIALS:
            n_threads = self._n_threads if turn < _TRIALS else 1
        else:
            n_threads = min(self._seconds, key=lambda n: median(self._seconds[n]))
        numba.set_num_threads(n_threads)
        start = perf_counter()
        yield
        if turn < 2 * _TRIALS:
            self._seconds[n_threads].append(perf_counter() - start)
        self._n_steps += 1
