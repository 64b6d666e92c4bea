"""Strings as files give them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def strings(values: Iterable[object]) -> NDArray[np.str_]:
    """Strings as they were written: files give them back in various types."""
    return np.array([str(value) for value in values], dtype=str)
