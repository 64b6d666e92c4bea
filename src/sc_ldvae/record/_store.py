"""Writing a fit into an AnnData, all of it or nothing."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from anndata import ImplicitModificationWarning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from sc_ldvae._typing import Floats

_MISSING = object()


def write(adata: AnnData, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Set ``adata.<attribute>[key] = value`` for all ``entries[attribute][key]``, or leave `adata` as it was.

    A view becomes an actual object first, as anndata does it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        before = {
            (attribute, key): getattr(adata, attribute).get(key, _MISSING)
            for attribute, values in entries.items()
            for key in values
        }
        try:
            for attribute, values in entries.items():
                for key, value in values.items():
                    getattr(adata, attribute)[key] = value
        except BaseException:
            for (attribute, key), value in before.items():
                _restore(getattr(adata, attribute), key, value)
            raise


def write_scores(adata: AnnData, key: str | None, values: Floats) -> float:
    """Their mean; with a key, ``obs[key]`` gets them."""
    if key is not None:
        write(adata, {"obs": {key: values}})
    return float(values.mean())


def _restore(mapping: Any, key: str, value: Any) -> None:  # noqa: ANN401  any of anndata's mappings and values
    if value is not _MISSING:
        mapping[key] = value
    elif key in mapping:
        del mapping[key]
