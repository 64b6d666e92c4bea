"""What a file is, whatever its name says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_BEGINNINGS = {
    b"\x1f\x8b": "It is compressed with gzip: unpack it first.",
    b"PK": "It is a zip archive: unpack it first.",
    b"<": "It is a web page or XML, without data: maybe a download failed.",
    b"version https://git-lfs": "It is a pointer of Git LFS, without data: fetch the file itself.",
}
_MOST_NAMES = 8


class _Kind(NamedTuple):
    description: str
    suffix: str
    """That it must have to be read."""
    groups: set[str]
    """Names that such files have at their root."""


# The first that fits.
_KINDS = (
    _Kind("a MuData file", ".h5mu", {"mod"}),
    _Kind("an AnnData file", ".h5ad", {"obs", "var"}),
    _Kind("a matrix of 10x Genomics", ".h5", {"matrix"}),
)
_NEEDED = {".h5ad": {"X", "obs", "var"}, ".h5mu": {"mod"}}
_OTHERS = (
    (
        {"barcode_idx", "umi"},
        "It is a molecule_info file of Cell Ranger, without a matrix: take filtered_feature_bc_matrix.h5 of this run.",
    ),
    (
        {"row_attrs", "col_attrs"},
        "It is a loom file: read it with anndata.io.read_loom, and write it as .h5ad.",
    ),
)


def has_what_it_needs(path: Path) -> bool:
    """Whether an HDF5 file has anything of what its suffix says: else libraries warn of it before they fail."""
    import h5py

    with h5py.File(path) as file:
        return not _NEEDED[path.suffix].isdisjoint(file)


def what_it_is(path: Path) -> str:
    """A sentence on what the file seems to be, and what to do."""
    try:
        return _sentence(path)
    except OSError:
        return "It can't be opened."


def _sentence(path: Path) -> str:
    if path.is_dir():
        names = {part.name for part in path.iterdir()}
        if path.suffix == ".zarr" and {"obs", "var"} <= names:
            return "It looks like an AnnData, but is damaged or lacks something."
        return f"It is a folder with {_some(sorted(names))}."
    with path.open("rb") as file:
        beginning = file.read(512)
    if not beginning:
        return "It is empty."
    for start, sentence in _BEGINNINGS.items():
        if beginning.lstrip().startswith(start):
            return sentence
    return _of_hdf5(path)


def _of_hdf5(path: Path) -> str:
    import h5py

    if not h5py.is_hdf5(path):
        return "It is no HDF5 file."
    try:
        with h5py.File(path) as file:
            names = set(file)
    except OSError:
        return "It is a damaged HDF5 file, maybe cut off: fetch it again."
    for groups, sentence in _OTHERS:
        if groups <= names:
            return sentence
    for kind in _KINDS:
        if kind.groups <= names and kind.suffix == path.suffix:
            return f"It looks like {kind.description}, but is damaged or lacks something."
        if kind.groups <= names:
            return f"It is {kind.description}: give it a name that ends in {kind.suffix}."
    return f"It is an HDF5 file with {_some(sorted(names))}."


def _some(names: Collection[str]) -> str:
    listed = ", ".join(map(repr, list(names)[:_MOST_NAMES])) or "nothing in it"
    return f"{listed}, ..." if len(names) > _MOST_NAMES else listed
