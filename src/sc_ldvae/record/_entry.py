"""What one entry of a record has to be: kind, shape and range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INFINITE = math.inf
_LARGEST_WHOLE = 2**53


class Entry(NamedTuple):
    """What an array has to be."""

    kind: str
    """A NumPy type, for which values are not rounded; ``'str'``: text."""
    shape: tuple[int | str, ...] = ()
    """Sizes, of which those with the same name are the same."""
    least: float = -_INFINITE
    most: float = _INFINITE
    optional: bool = False
    distinct: bool = False
    """Whether no value may be there twice."""
    rather_whole: bool = False
    """Whether numbers that are all whole are given as integers."""


def text(*shape: str, **more: Any) -> Entry:
    """Text."""
    return Entry("str", shape, **more)


def whole(*shape: str, **more: Any) -> Entry:
    """Whole numbers, from 0 on."""
    return Entry("int64", shape, **{"least": 0, "most": _LARGEST_WHOLE} | more)


def single(*shape: int | str, **more: Any) -> Entry:
    """Numbers in single precision."""
    return Entry("float32", shape, **more)


def double(*shape: str, **more: Any) -> Entry:
    """Numbers in double precision."""
    return Entry("float64", shape, **more)


class Sizes(dict[str, int]):
    """Sizes by name, learnt from what names them first."""

    def fits(self, shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
        """Whether an array may have this shape."""
        if len(shape) != len(expected):
            return False
        pairs = zip(shape, expected, strict=True)
        return all(size == (self.setdefault(name, size) if isinstance(name, str) else name) for size, name in pairs)

    def shape(self, expected: tuple[int | str, ...]) -> str:
        """How NumPy writes it; sizes that nobody knows yet by their names."""
        sizes = [str(self.get(name, name)) if isinstance(name, str) else str(name) for name in expected]
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def checked(part: Mapping[str, Any], path: str, table: Mapping[str, Entry], sizes: Sizes) -> dict[str, Any]:
    """Those of a table that are there, in the kinds and shapes that they had when they were written.

    Raises
    ------
    ValueError
        If some are gone, or are something else. The sentence begins with the name.
    """
    present = {name: entry for name, entry in table.items() if name in part or not entry.optional}
    return {name: _entry(part, path, name, entry, sizes) for name, entry in present.items()}


def _entry(part: Mapping[str, Any], path: str, name: str, entry: Entry, sizes: Sizes) -> Any:
    if name not in part:
        msg = f"{path + name!r} is missing"
        raise ValueError(msg)
    array = part[name]
    problem = "is a dict" if isinstance(array, Mapping) else _type_problem(array, entry)
    if problem is None:
        # One number, and a vector of it: files do not always tell them apart.
        array = array.reshape((1,) * len(entry.shape)) if array.size == 1 and array.ndim <= 1 else array
        if not sizes.fits(array.shape, entry.shape):
            problem = f"has the shape {array.shape} in place of {sizes.shape(entry.shape)}"
    problem = problem or _value_problem(array, entry)
    if problem is not None:
        msg = f"{path + name!r} {problem}"
        raise ValueError(msg)
    kind = "int64" if entry.rather_whole and _are_whole(array) else entry.kind
    array = np.ascontiguousarray(array, kind).reshape(array.shape)
    return array if entry.shape else array.item()


def _are_whole(array: NDArray[Any]) -> bool:
    # Beyond the largest, numbers are whole for want of digits. As numbers of Python: it would overflow in halves.
    return not array.size or ((array == np.rint(array)).all() and array.max().item() <= _LARGEST_WHOLE)


def _type_problem(array: NDArray[Any], entry: Entry) -> str | None:
    if entry.kind == "str":
        return None if array.dtype.kind == "U" else f"holds {array.dtype} in place of text"
    # Halves and integers in place of single precision: somebody has rounded.
    right = array.dtype.kind == "f" and array.dtype.itemsize >= np.dtype("float32").itemsize
    right = right if entry.kind == "float32" else array.dtype.kind in "iuf"
    return None if right else f"holds {array.dtype} in place of {entry.kind}"


def _value_problem(array: NDArray[Any], entry: Entry) -> str | None:
    if entry.kind == "str":
        repeated = entry.distinct and len(np.unique(array)) < array.size
        return "holds a name twice" if repeated else None
    if not np.isfinite(array).all():
        return "holds values that are missing or infinite"
    # As numbers of Python: the limits would overflow in halves.
    if array.size and (array.min().item() < entry.least or array.max().item() > entry.most):
        return "holds values that it can't have"
    if entry.kind == "int64" and (array != np.rint(array)).any():
        return "holds values that are not whole"
    beyond = entry.kind == "float32" and np.abs(array).max(initial=0) > np.finfo(np.float32).max
    return "holds values beyond single precision" if beyond else None
