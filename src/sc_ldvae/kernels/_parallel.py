"""Kernels whose slices are computed by several threads, or by one where threads can't be had."""

from __future__ import annotations

from functools import update_wrapper
from threading import Lock
from typing import TYPE_CHECKING, Any

from sc_ldvae.kernels._jit import on_threads
from sc_ldvae.kernels._threads import layer

if TYPE_CHECKING:
    from collections.abc import Callable

# Layers that several threads of Python may use at once. The other one ends the process.
_SHARED = ("omp", "tbb")
_own = Lock()


class ParallelKernel:
    """A kernel that is told whether to do its slices one after the other: its first argument, which callers leave out.

    Either way the same machine code does a slice.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._kernel = on_threads(function)
        update_wrapper(self, function)

    def __call__(self, n_slices: int, *arguments: Any) -> None:
        """Fill what the kernel fills."""
        # To wake threads for a single slice takes longer than most of them do.
        now = layer() if n_slices > 1 else ""
        if now in _SHARED:
            self._kernel(False, n_slices, *arguments)  # noqa: FBT003  kernels know no keywords
        elif now and _own.acquire(blocking=False):
            try:
                self._kernel(False, n_slices, *arguments)  # noqa: FBT003
            finally:
                _own.release()
        else:
            self._kernel(True, n_slices, *arguments)  # noqa: FBT003


def parallel_kernel(function: Callable[..., Any]) -> ParallelKernel:
    """`kernel` for a function that hands its slices to a `slice_of_kernel`, with `range` or `prange`."""
    return ParallelKernel(function)
