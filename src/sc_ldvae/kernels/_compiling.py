"""While kernels are compiled: who is told of it, and a second process that compiles others of them meanwhile.

What both make they find in the cache on disk. In a process numba compiles one kernel at a time: threads would not do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba

from sc_ldvae.kernels._threads import n_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Seconds between two looks for what the second process makes, and after which nothing is expected of it any more.
_BETWEEN_LOOKS, _LONGEST = 0.05, 120.0
_WHAT = "compiling kernels, once per machine"
_calls = threading.local()


class Compilation:
    """Of the kernels that a call has to wait for.

    Parameters
    ----------
    tell
        Is told what the call waits for: that kernels are compiled, or nothing any more.
    code
        Of the second process: what is left of it when it is formatted with the names of kernels, a list, compiles them
        and keeps them on disk. Nothing is started for an empty one.
    names
        Kernels that it can compile, those first that are needed first.
    """

    def __init__(self, tell: Callable[[str], None], code: str = "", names: Sequence[str] = ()) -> None:
        self._tell, self._code, self._names = tell, code, names
        self._process: subprocess.Popen[bytes] | None = None
        self._elsewhere: list[str] | None = None
        self._depth = 0

    def begin(self, name: str, look: Callable[[], Any]) -> Any:
        """The machine code of a kernel that was not there, if the second process makes it, or None."""
        # Some kernels call others.
        self._depth += 1
        if self._depth == 1:
            self._tell(_WHAT)
        if self._elsewhere is None:
            # The first one: what the second process can compile of the others, it does.
            self._elsewhere = [other for other in self._names if other != name]
            self._process = self._start()
        elif name in self._elsewhere:
            return self._awaited(look)
        return None

    def end(self) -> None:
        """It has been compiled, or found."""
        self._depth -= 1
        if self._depth == 0:
            self._tell("")

    def close(self) -> None:
        """End the second process, if it has not ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes] | None:
        # A program that has Python inside of it would be started anew, whatever it is.
        is_python = Path(sys.executable or "").stem.lower().startswith("python")
        if not self._code or not self._elsewhere or not is_python or n_threads() == 1:
            return None
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        folder = vars(numba.config)["CACHE_DIR"]
        if folder:
            environment["NUMBA_CACHE_DIR"] = folder
        command = [sys.executable, "-P", "-c", self._code.format(self._elsewhere)]
        nowhere = subprocess.DEVNULL
        try:
            return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment)  # noqa: S603
        except OSError:
            # No more processes, or none at all: this one compiles everything.
            return None

    def _awaited(self, look: Callable[[], Any]) -> Any:
        until = time.monotonic() + _LONGEST
        while self._process is not None and time.monotonic() < until:
            ended = self._process.poll() is not None
            found = look()
            if found is not None or ended:
                return found
            time.sleep(_BETWEEN_LOOKS)
        return None


@contextmanager
def compiled_with(compilation: Compilation) -> Iterator[None]:
    """Let what this thread has to compile be that of `compilation`, unless it is another's already."""
    if current() is not None:
        yield
        return
    _calls.compilation = compilation
    try:
        yield
    finally:
        _calls.compilation = None
        compilation.close()


def current() -> Compilation | None:
    """That of the call in this thread, if there is one."""
    found: Compilation | None = getattr(_calls, "compilation", None)
    return found
