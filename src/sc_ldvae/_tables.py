"""Tables of named arrays as one table, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_ldvae._typing import Arrays


def joined(tables: Mapping[str, Arrays]) -> dict[str, NDArray[Any]]:
    """Every array of every table, under ``table/name``."""
    return {f"{table}/{name}": array for table, arrays in tables.items() for name, array in arrays.items()}


def parted(arrays: Arrays, *tables: str) -> dict[str, dict[str, NDArray[Any]]]:
    """The tables that `joined` was given, and of those that are named also what was empty."""
    found: dict[str, dict[str, NDArray[Any]]] = {table: {} for table in tables}
    for path, array in arrays.items():
        table, name = path.split("/", 1)
        found.setdefault(table, {})[name] = array
    return found
