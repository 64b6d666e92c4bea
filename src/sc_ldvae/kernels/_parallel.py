"""Kernels whose slices are computed by several threads, or by one where threads can't be had."""

from __future__ import annotations

from functools import update_wrapper
from threading import Lock
from typing import TYPE_CHECKING, Any

from sc_ldvae.kernels._jit import kernel_kept_as, part_of_parallel_kernel
from sc_ldvae.kernels._slices import bound, run_slices
from sc_ldvae.kernels._threads import layer

if TYPE_CHECKING:
    from collections.abc import Callable

# Layers that several threads of Python may use at once. The other one ends the process.
_SHARED = ("omp", "tbb")
_own = Lock()


class ParallelKernel:
    """A function that does a slice of some work, done for all of them.

    The function takes the number of the slice, then that of all slices. Callers pass the latter and what follows.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        of_slice = part_of_parallel_kernel(function)

        def every_slice(serial, n_slices, *arguments):
            address, data = bound(of_slice, (n_slices, *arguments))
            run_slices(serial, n_slices, address, data)

        self._kernel = kernel_kept_as(function, every_slice)
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
    """`kernel` for a function that does one slice of its work, so that threads may do others."""
    return ParallelKernel(function)
