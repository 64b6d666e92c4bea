"""What files give back, brought into one form: text as text, numbers as numbers, whatever array holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._memory import check_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CHECKSUM = "checksum"


def plain(value: Any, name: str) -> Any:
    """A NumPy array of numbers or of text, or a dict of such, for what was one of these when it was written.

    Parameters
    ----------
    value
        An entry of uns: arrays may be of any library, and on disk; text may be bytes.
    name
        What messages call it.

    Raises
    ------
    ValueError
        If it is neither, or claims to hold more than fits into memory.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one, f"{name}/{key}") for key, one in value.items()}
    try:
        array = _array(value)
    except Exception as error:
        # Every library has its own for what it can't read.
        said = str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
        msg = f"{name!r} can't be read ({said})"
        raise ValueError(msg) from error
    if array.dtype.kind not in "biufU":
        msg = f"{name!r} is of the type {array.dtype}, neither text nor numbers"
        raise ValueError(msg)
    return array


def checksum(content: Mapping[str, Any]) -> str:
    """Digest of all names and values of nested dicts of numbers and text, alone or in arrays.

    It is the same for one number and a vector of it, for single and double precision of a value, for numbers of any
    type: so far files change what they are given.
    """
    digest = blake2b(digest_size=16)
    for path, value in sorted(leaves(content), key=itemgetter(0)):
        one = np.atleast_1d(value)
        content_bytes = "\0".join(one.ravel()).encode() if one.dtype.kind == "U" else one.astype(np.float64).tobytes()
        for part in (path.encode(), repr(one.shape).encode(), content_bytes):
            digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def says(entry: Any, text: str) -> bool:
    """Whether what `plain` gave is this text, alone or in a vector of one."""
    return isinstance(entry, np.ndarray) and entry.size == 1 and entry.ndim <= 1 and entry.item() == text


def leaves(content: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested dicts with the path to it."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}/")
        else:
            yield path + name, value


def _array(value: Any) -> NDArray[Any]:
    if np.ma.is_masked(value):
        msg = "some of its values are masked"
        raise ValueError(msg)
    shape = getattr(value, "shape", ())
    if shape and not isinstance(value, np.ndarray):
        check_memory(math.prod(shape) * getattr(getattr(value, "dtype", None), "itemsize", 8), "it", "")
    array = np.asarray(value)
    if min(array.strides, default=0) < 0:
        # torch takes none that runs backwards, and one value alone runs so and is contiguous.
        array = array.copy()
    if array.dtype.kind not in "OST":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    texts = array.astype(object)
    if not all(isinstance(one, str | bytes) for one in texts.flat):
        return array.astype(object)
    decoded = [one.decode() if isinstance(one, bytes) else str(one) for one in texts.flat]
    return np.array(decoded, dtype=str).reshape(array.shape)
