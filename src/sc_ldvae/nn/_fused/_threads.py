"""Kernels on several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class Threads:
    """As many threads as torch uses, or `n`. Kernels give up the interpreter's lock, so that plain threads run side by side.

    Not the threads of numba: its pool and torch's would spin against each other, and its number of threads is a global
    setting.
    """

    def __init__(self, n: int | None = None) -> None:
        self.n = torch.get_num_threads() if n is None else n
        self._pool = ThreadPoolExecutor(self.n - 1, "sc_ldvae") if self.n > 1 else None

    def run(self, kernel: Callable[..., Any], n_parts: int, *arguments: Any) -> None:  # noqa: ANN401
        """Call ``kernel(part, n_parts, *arguments)`` for each part."""
        if self._pool is None or n_parts == 1:
            for part in range(n_parts):
                kernel(part, n_parts, *arguments)
            return
        others = [self._pool.submit(kernel, part, n_parts, *arguments) for part in range(1, n_parts)]
        kernel(0, n_parts, *arguments)
        for other in others:
            other.result()

    def parts(self, work: int) -> int:
        """How many parts pay for so many elementary operations."""
        return max(1, min(self.n, work // 32_768))

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()
