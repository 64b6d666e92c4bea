"""Genes of an AnnData, its fits and comparisons under new names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_ldvae.record._comparison import comparisons_in, renamed_comparison
from sc_ldvae.record._file import has_file_to_write
from sc_ldvae.record._others import OTHERS
from sc_ldvae.record._read import fits_in, read
from sc_ldvae.record._sealed import sealed
from sc_ldvae.record._store import write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData


def write_renamed(adata: AnnData, names: Mapping[str, str]) -> None:
    """Give genes new `names`, wherever they have their old ones.

    Raises
    ------
    ValueError
        If nothing has one of the old names, if genes would share one, if a fit is of several modalities, or if a file
        would have to follow.
    """
    if has_file_to_write(adata):
        msg = "data is backed by a file open for writing, whose genes keep their names. Load it: data.to_memory()."
        raise ValueError(msg)
    found = {"var_names": adata.var_names}
    fits = {key: read(adata, key) for key in fits_in(adata)}
    for key, stored in fits.items():
        if "modalities" in stored.content:
            msg = f"uns[{key!r}] is of a joint fit, whose other parts would keep the old names. Rename before the fit."
            raise ValueError(msg)
        found[f"uns[{key!r}]"] = pd.Index(stored.known_genes.astype(object))
    if not any(name in names for index in found.values() for name in index):
        old = next(iter(names), None)
        msg = f"names holds no gene of data or of its fits (for example {old!r}). Give the new names by the old ones."
        raise ValueError(msg)
    new = {whose: _renamed(index, names, whose) for whose, index in found.items()}
    content: dict[str, Any] = {}
    for key, stored in fits.items():
        names_now = new[f"uns[{key!r}]"].to_numpy().astype(np.str_)
        content[key] = stored.content_for(stored.keys) | {"genes": names_now[: len(stored.genes)]}
        if OTHERS in content[key]:
            content[key][OTHERS] = content[key][OTHERS] | {"genes": names_now[len(stored.genes) :]}
        content[key] = sealed(content[key])
    content |= {name: renamed_comparison(stored, names) for name, stored in comparisons_in(adata).items()}
    write(adata, {"uns": content}, var_names=new["var_names"])


def _renamed(index: pd.Index[str], names: Mapping[str, str], whose: str) -> pd.Index[str]:
    """The index with new names.

    Raises
    ------
    ValueError
        If two genes have one name then.
    """
    new = pd.Index([names.get(name, name) for name in index], dtype=index.dtype, name=index.name)
    repeated = new[new.duplicated()]
    if len(repeated):
        own = [old for old, name in zip(index, new, strict=True) if name == repeated[0]]
        msg = (
            f"names makes {len(repeated)} genes of {whose} share a name with others (for example {own[0]!r} and "
            f"{own[1]!r} would be {repeated[0]!r}). Give each gene its own name."
        )
        raise ValueError(msg)
    return new
