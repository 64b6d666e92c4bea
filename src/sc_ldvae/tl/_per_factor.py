"""Where the tools that ask what factors mean put their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sc_ldvae import record
from sc_ldvae._modality import pick_modality

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sc_ldvae._typing import Data


def with_table(
    data: Data,
    modality: str | None,
    name: str,
    table: Mapping[str, Any],
    *,
    fit: record.Record | None = None,
    copy: bool,
) -> Data | None:
    """Set ``uns[name]`` to a result, in `data` or in a copy, which comes back; it tells which `fit` it is of.

    Raises
    ------
    ValueError
        If a fit stands there.
    """
    if name in record.fits_in(pick_modality(data, modality)):
        msg = f"key_added={name!r} would replace the fit in uns[{name!r}]. Give another name."
        raise ValueError(msg)
    mark = {} if fit is None else {"fit": fit.fingerprint}
    result = data.copy() if copy else data
    record.write(pick_modality(result, modality), {"uns": {name: dict(table) | mark}})
    return result if copy else None
