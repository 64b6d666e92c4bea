"""What the tools found out about a fit: tables in uns, that tell which fit they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae.record._record import fits_in
from sc_ldvae.record._store import write
from sc_ldvae.record._strings import strings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from sc_ldvae.record._record import Record


def write_result(adata: AnnData, name: str, result: Mapping[str, Any], stored: Record | None = None) -> None:
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
    write(adata, {"uns": {name: dict(result) | mark}})


def read_result(
    adata: AnnData, name: str, tool: str, parts: Sequence[str], stored: Record | None = None
) -> Mapping[str, Any]:
    """What the tool left in ``adata.uns[name]``.

    Raises
    ------
    ValueError
        If one of `parts` is not there, or if it is of another fit than `stored`.
    """
    result: Mapping[str, Any] = adata.uns.get(name, {})
    if not all(part in result for part in parts):
        msg = f"uns[{name!r}] holds no result of sc_ldvae.tl.{tool}. Call it first, or name its result with key_added=."
        raise ValueError(msg)
    if stored is not None and str(result.get("fit", stored.fingerprint)) != stored.fingerprint:
        msg = (
            f"uns[{name!r}] is of another fit than uns[{stored.keys.uns!r}] holds now. Call sc_ldvae.tl.{tool} again, "
            "or name its result with key_added=."
        )
        raise ValueError(msg)
    return result


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain strings, numbers and booleans: files give them back in various types."""
    return {name: np.asarray(value).item() for name, value in params.items()}


def plain_column(values: Any) -> np.ndarray:  # noqa: ANN401  whatever a file gives
    """Numbers as they are, all else as strings."""
    array = np.asarray(values)
    return array if array.dtype.kind in "iuf" else strings(values)
