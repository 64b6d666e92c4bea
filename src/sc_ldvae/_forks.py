"""Whether this process was forked from one whose threads it does not have.

The threads of a pool stay behind in the parent, but the library that started them counts on them still: torch waits for
them for ever, numba ends the process. Only a process that was forked before it knows this module is not seen to be one,
where there is no /proc.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# A flag of Linux's processes (PF_FORKNOEXEC), and where it stands behind the name in /proc/self/stat.
_FORKED, _FLAGS = 0x40, 6


class _Process:
    lost_threads = False

    def was_forked(self) -> None:
        """Threads of these libraries, if any had been started, are lost."""
        self.lost_threads |= "torch" in sys.modules or _numba_has_threads()


_process = _Process()


def lost_threads() -> bool:
    """Whether torch or numba may count on threads that are in another process."""
    return _process.lost_threads


def _numba_has_threads() -> bool:
    numba: Any = sys.modules.get("numba")
    # It says so by an exception if there are none; and it may be half imported.
    with suppress(ValueError, AttributeError):
        return bool(numba.threading_layer())
    return False


def _is_fork() -> bool:
    with suppress(OSError, ValueError, IndexError):
        return bool(int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[_FLAGS]) & _FORKED)
    return False


if _is_fork():
    _process.was_forked()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.was_forked)
