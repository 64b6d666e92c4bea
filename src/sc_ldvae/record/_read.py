"""Fits found in an AnnData, and brought to the current format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_ldvae._said import said
from sc_ldvae.record._keys import DEFAULT, Keys
from sc_ldvae.record._record import Record
from sc_ldvae.record._sealed import SCHEMA_VERSION, checked

if TYPE_CHECKING:
    from anndata import AnnData

    from sc_ldvae._typing import Data

# What every format has beside its number, and no other tool's entry of uns; damage may have taken one of them.
_MARKS = {"decoder", "encoder", "views"}


def fits_in(adata: Data) -> dict[str, Mapping[str, Any]]:
    """Content of every fit in uns, by its key, as it stands there."""
    entries = {name: value for name, value in adata.uns.items() if isinstance(value, Mapping)}
    return {
        name: value for name, value in entries.items() if "schema_version" in value and not _MARKS.isdisjoint(value)
    }


def read(adata: AnnData, key: str = DEFAULT) -> Record:
    """The fit stored in ``adata.uns[key]``.

    Raises
    ------
    ValueError
        If there is none, if a newer version of the package wrote it, or if it is not what was written.
    """
    fits = fits_in(adata)
    if key not in fits:
        found = ", ".join(map(said, fits)) or "none"
        msg = f"uns[{key!r}] holds no fit. Fit one with sc_ldvae.tl.ldvae, or name it with key=. Fits here: {found}."
        raise ValueError(msg)
    content = intact(key, fits[key], checked)
    keys = Keys.from_dict(content["keys"])
    for attribute, entry in (("obsm", keys.latent), ("obsm", keys.variance), ("varm", keys.loadings)):
        if entry not in getattr(adata, attribute):
            msg = f"uns[{key!r}] holds a fit, but its {attribute}[{entry!r}] is gone. Put it back, or fit again."
            raise ValueError(msg)
    stored = Record(keys, _from_format_1(content, keys, adata) if content["schema_version"] == 1 else content)
    problem = _problem_of(stored)
    if problem is not None:
        raise ValueError(_damaged(key, problem))
    return stored


def intact(key: str, stored: Mapping[str, Any], check: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """The content of ``uns[key]`` as it was written, if `check` has nothing to say against it.

    Raises
    ------
    ValueError
        If a newer version of the package wrote it, or if it is not what was written.
    """
    try:
        content = check(stored)
    except ValueError as error:
        raise ValueError(_damaged(key, error)) from error
    if content["schema_version"] > SCHEMA_VERSION:
        msg = (
            f"uns[{key!r}] was written in format {content['schema_version']}, this version reads up to "
            f"{SCHEMA_VERSION}. Update sc-ldvae."
        )
        raise ValueError(msg)
    return content


def _damaged(key: str, problem: object) -> str:
    return f"uns[{key!r}] is damaged: {problem}. Read the object from its file again, or fit again."


def _problem_of(stored: Record) -> str | None:
    """What can't be where no checksum has told of it, beyond types, shapes and ranges."""
    table = stored.content.get("covariates", {"key": np.array([]), "level": np.array([])})
    if stored.design.columns != list(zip(table["key"].tolist(), table["level"].tolist(), strict=True)):
        return "'covariates' are of no fit"
    covariance = stored.loadings_covariance
    if covariance is not None and (np.diagonal(covariance, axis1=1, axis2=2) < 0).any():
        return "'loadings_covariance' holds variances below zero"
    return None


def _from_format_1(content: Mapping[str, Any], keys: Keys, adata: AnnData) -> Mapping[str, Any]:
    """Format 1 did not say what a size factor of one stands for; the fitted cells do."""
    key = content["params"].get("size_factor_key")
    if key is None or not {str(key), keys.library} <= set(adata.obs):
        return content
    # Read lazily, they are no columns of pandas.
    library, factor = (np.asarray(adata.obs[name], dtype=np.float64) for name in (keys.library, str(key)))
    ratios = library / factor
    return {**content, "size_factor_unit": float(np.median(ratios))}
