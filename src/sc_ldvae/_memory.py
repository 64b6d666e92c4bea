"""What would not fit into memory is refused before it is begun."""

from __future__ import annotations


def check_memory(n_bytes: int, what: str, advice: str) -> None:
    """Refuse to make `what` if it takes more bytes than are free.

    Raises
    ------
    MemoryError
        The sentence names both numbers.
    """
    import psutil

    free = psutil.virtual_memory().available
    if n_bytes > free:
        msg = f"{what} needs {n_bytes:,} bytes ({n_bytes / 1e9:.1f} GB), but {free / 1e9:.1f} GB are free. {advice}"
        raise MemoryError(msg)
