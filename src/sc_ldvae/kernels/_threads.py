"""How many threads the kernels use, and into how many slices they cut their work."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numba

from sc_ldvae._forks import lost_threads
from sc_ldvae._restored import restored

if TYPE_CHECKING:
    from collections.abc import Iterator

# A slice is worth its start for so many elementary operations.
_WORTH = 32_768
_MOST = 16


@contextmanager
def own_threads() -> Iterator[None]:
    """Let numba use as many threads as torch may, in this thread of Python and within the context only.

    People who share a machine set the number of torch's threads. Where torch is not loaded, nobody has.
    """
    torch: Any = sys.modules.get("torch")
    with restored() as undo:
        # torch is asked first: at its start numba's pool sets the number of OpenMP's threads, which is torch's, too.
        n_threads = 0 if torch is None else torch.get_num_threads()
        if torch is not None:
            undo.append(partial(torch.set_num_threads, n_threads))
        _start()
        undo.append(partial(numba.set_num_threads, numba.get_num_threads()))
        if torch is not None:
            numba.set_num_threads(min(n_threads, _largest()))
            torch.set_num_threads(n_threads)
        yield


def n_threads() -> int:
    """How many threads that is, for what threads of Python do."""
    with own_threads():
        return int(numba.get_num_threads())


def layer() -> str:
    """Name of what runs the threads of numba; empty where they had better not run."""
    if lost_threads():
        return ""
    try:
        name = _started()
    except ValueError:
        _start()
        name = _started()
    return "" if name == "omp" and _has_two_openmps() else name


def _start() -> None:
    """Start the pool of numba, which looks for OpenMP unless it is told otherwise."""
    config: Any = numba.config
    with restored() as undo:
        if _has_two_openmps() and str(config.THREADING_LAYER).lower() == "default":
            undo.append(partial(setattr, config, "THREADING_LAYER", config.THREADING_LAYER))
            config.THREADING_LAYER = "workqueue"
        numba.get_num_threads()


def _started() -> str:
    name: str = vars(numba)["threading_layer"]()
    return name


def _has_two_openmps() -> bool:
    """On macOS torch and scikit-learn bring an OpenMP each, numba takes one of them, and the process crashes."""
    return sys.platform == "darwin"


def _largest() -> int:
    most: int = vars(numba.config)["NUMBA_NUM_THREADS"]
    return most


def n_slices(work: int) -> int:
    """Slices into which a kernel cuts so many elementary operations: a power of two.

    Not a matter of the number of threads: sums over slices come out the same to the bit for any number of them.
    """
    return min(_MOST, 1 << max(0, int(work // _WORTH).bit_length() - 1))
