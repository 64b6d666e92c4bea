"""What the tools found out about a fit: tables in uns, that tell which fit they are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sc_ldvae.record._plain import CHECKSUM, checksum, plain, says
from sc_ldvae.record._read import fits_in
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sc_ldvae._typing import Data
    from sc_ldvae.record._joint import JointRecord
    from sc_ldvae.record._record import Record


def write_result(adata: Data, name: str, result: Mapping[str, Any], stored: Record | JointRecord | None = None) -> None:
    """Set ``uns[name]`` to a result, which tells which fit it is of (None: of no single one).

    Raises
    ------
    ValueError
        If a fit stands there.
    """
    if name in fits_in(adata):
        msg = f"key_added={name!r} would replace the fit in uns[{name!r}]. Give another name."
        raise ValueError(msg)
    mark = {} if stored is None else {"fit": stored.fingerprint}
    content = dict(result) | mark
    write(adata, {"uns": {name: content | {CHECKSUM: checksum(plain(content, name))}}})


def read_result(
    adata: Data, name: str, tool: str, parts: Sequence[str], stored: Record | JointRecord | None = None
) -> Mapping[str, Any]:
    """What the tool left in ``adata.uns[name]``, as arrays of numbers and of text.

    Raises
    ------
    ValueError
        If one of `parts` is not there or not what was written, or if it is of another fit than `stored`.
    """
    found = adata.uns.get(name)
    if not isinstance(found, Mapping) or not all(part in found for part in parts):
        msg = f"uns[{name!r}] holds no result of sc_ldvae.tl.{tool}. Call it first, or name its result with key_added=."
        raise ValueError(msg)
    result = _checked(found, name, tool)
    if stored is not None and "fit" in result and not says(result["fit"], stored.fingerprint):
        msg = (
            f"uns[{name!r}] is of another fit than uns[{stored.keys.uns!r}] holds now. Call sc_ldvae.tl.{tool} again, "
            "or name its result with key_added=."
        )
        raise ValueError(msg)
    return result


def _checked(found: Mapping[str, Any], name: str, tool: str) -> dict[str, Any]:
    try:
        result = {str(part): plain(value, str(part)) for part, value in found.items()}
        # Results of older versions have none.
        written = result.pop(CHECKSUM, None)
        if written is not None and not says(written, checksum(result)):
            msg = "its values are not those that were written"
            raise ValueError(msg)  # noqa: TRY301  one sentence for all that can be wrong
    except ValueError as error:
        msg = f"uns[{name!r}] is damaged: {error}. Call sc_ldvae.tl.{tool} again."
        raise ValueError(msg) from error
    return result


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain strings, numbers and booleans."""
    return {name: value.item() for name, value in params.items()}
