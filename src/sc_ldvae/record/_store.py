"""Writing a fit into an AnnData, all of it or nothing, and reading it back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import ImplicitModificationWarning

from sc_ldvae.record._keys import DEFAULT, Keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

SCHEMA_VERSION = 1
_MISSING = object()


@dataclass(frozen=True)
class Record:
    """A fit as it was read from an AnnData."""

    keys: Keys
    content: Mapping[str, Any]

    @property
    def genes(self) -> NDArray[np.str_]:
        """Names of the fitted genes."""
        return strings(self.content["genes"])

    @property
    def factor_names(self) -> list[str]:
        """Names of the factors: the record's key and a number from 1."""
        n_latent = self.content["decoder"]["loadings"].shape[1]
        return [f"{self.keys.uns}{k}" for k in range(1, n_latent + 1)]


def strings(values: Iterable[object]) -> NDArray[np.str_]:
    """Strings as they were written: files give them back in various types."""
    return np.array([str(value) for value in values], dtype=str)


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


def read(adata: AnnData, key: str = DEFAULT) -> Record:
    """The fit stored in ``adata.uns[key]``.

    Raises
    ------
    ValueError
        If there is none, if a newer version of the package wrote it, or if parts of it are gone.
    """
    fits = {name: value for name, value in adata.uns.items() if hasattr(value, "keys") and "schema_version" in value}
    if key not in fits:
        found = ", ".join(map(repr, fits)) or "none"
        msg = f"uns[{key!r}] holds no fit. Fit one with sc_ldvae.tl.ldvae, or name it with key=. Fits here: {found}."
        raise ValueError(msg)
    content = fits[key]
    version = int(content["schema_version"])
    if version > SCHEMA_VERSION:
        msg = (
            f"uns[{key!r}] was written in format {version}, this version reads up to {SCHEMA_VERSION}. Update sc-ldvae."
        )
        raise ValueError(msg)
    keys = Keys(**{name: str(value) for name, value in content["keys"].items()})
    for attribute, entry in (("obsm", keys.latent), ("obsm", keys.variance), ("varm", keys.loadings)):
        if entry not in getattr(adata, attribute):
            msg = f"uns[{key!r}] holds a fit, but its {attribute}[{entry!r}] is gone. Put it back, or fit again."
            raise ValueError(msg)
    return Record(keys, content)


def _restore(mapping: Any, key: str, value: Any) -> None:  # noqa: ANN401  any of anndata's mappings and values
    if value is not _MISSING:
        mapping[key] = value
    elif key in mapping:
        del mapping[key]
