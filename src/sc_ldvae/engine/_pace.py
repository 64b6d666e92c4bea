"""How many threads a step is worth."""

from __future__ import annotations

from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numba

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIALS, _BETWEEN_TRIALS = 4, 128


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
