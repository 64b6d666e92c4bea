"""The content of a fit as it was written, and what tells whether it still is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae.record._plain import checksum, plain
from sc_ldvae.record._schema import typed

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION = 8
_FIRST_WITH_CHECKSUM = 5


def checked(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a fit as it was written.

    Raises
    ------
    ValueError
        If it is not. The sentence begins with what is wrong.
    """
    number = version_of(stored)
    if number > SCHEMA_VERSION:
        # Nobody knows what else is in it.
        return {"schema_version": number}
    content = {str(name): plain(value, str(name)) for name, value in stored.items()}
    record = typed(content) | {"schema_version": number}
    if number >= _FIRST_WITH_CHECKSUM and "checksum" not in record:
        msg = "'checksum' is missing"
        raise ValueError(msg)
    if "checksum" in record and record["checksum"] != checksum_of(record):
        msg = "its values are not those that were written"
        raise ValueError(msg)
    return record


def version_of(stored: Mapping[str, Any]) -> int:
    """Number of the format.

    Raises
    ------
    ValueError
        If it is none.
    """
    version = plain(stored["schema_version"], "schema_version")
    try:
        # As a number, also where it is text.
        return int(version.item())
    except (AttributeError, ValueError, OverflowError) as error:
        msg = "'schema_version' is no number"
        raise ValueError(msg) from error


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a fit as it is written: with what tells later whether it is still the same."""
    record = typed({name: plain(value, name) for name, value in content.items()})
    return dict(content) | {"checksum": checksum_of(record | {"schema_version": SCHEMA_VERSION})}


def checksum_of(content: Mapping[str, Any]) -> str:
    """Of all but itself."""
    return checksum({name: value for name, value in content.items() if name != "checksum"})
