"""What can be refused before anything is loaded that takes seconds, and before counts are read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from sc_ldvae.cli._modalities import likelihoods_of

# What tells a store of zarr, of either format, from any other folder.
_ZARR = ".zgroup", "zarr.json"


class Files(NamedTuple):
    """What a command writes."""

    result: Path
    picture: Path
    table: Path


def files_of(output: str) -> Files:
    """The result and, beside it, the picture and the table."""
    path = Path(output)
    return Files(path, *(path.with_name(f"{path.stem}_{rest}") for rest in ("loadings.png", "top_genes.csv")))


def check_at_once(asked: dict[str, Any]) -> None:
    """Refuse files and options that can't be used, whatever the counts are.

    Raises
    ------
    ValueError, OSError, ImportError
        If there is no such file, if the output can't be written or would replace something that nobody said is to be
        replaced, or if options contradict each other or the kind of file.
    """
    counts = None if asked["counts"] is None else Path(asked["counts"])
    if counts is not None and not counts.exists():
        msg = f"There is no file {counts}."
        raise FileNotFoundError(msg)
    if asked["n_genes"] < 1:
        msg = f"n_genes must be at least 1, but is {asked['n_genes']}."
        raise ValueError(msg)
    likelihoods_of(asked["modalities"])
    _check_kind(counts, asked)
    _check_selection(asked)
    _check_output(counts, asked)


def _check_kind(counts: Path | None, asked: dict[str, Any]) -> None:
    """Options that only some kinds of files have."""
    for name in ("modality", "modalities"):
        if asked[name] is not None and (counts is None or counts.suffix != ".h5mu"):
            what = "no file, which comes before the options" if counts is None else f"{counts.name} has none"
            msg = f"--{name} was given, but {what}: only .h5mu files have modalities. Leave it out, or name one."
            raise ValueError(msg)
    if asked["backed"] and (counts is None or asked["raw"] or counts.suffix not in {".h5ad", ".zarr"}):
        msg = "--backed was given, but only X and layers of a .h5ad or .zarr file can stay on disk. Leave it out."
        raise ValueError(msg)


def _check_selection(asked: dict[str, Any]) -> None:
    if asked["n_top_genes"] is None:
        return
    if asked["backed"]:
        msg = (
            "--n-top-genes and --backed were both given, but scanpy selects genes from counts in memory alone. Select "
            "them first, as a boolean column 'highly_variable' of var, and leave --n-top-genes out."
        )
        raise ValueError(msg)
    if importlib.util.find_spec("skmisc") is None:
        msg = "--n-top-genes needs scikit-misc, for scanpy's flavor 'seurat_v3': pip install scikit-misc."
        raise ImportError(msg)


def _check_output(counts: Path | None, asked: dict[str, Any]) -> None:
    files = files_of(asked["output"])
    is_mudata = counts is not None and counts.suffix == ".h5mu"
    suffixes = (".h5mu",) if is_mudata else (".h5ad", ".zarr")
    if files.result.suffix not in suffixes:
        kind = "a MuData" if is_mudata else "an AnnData"
        msg = f"--output {files.result} must end in {' or '.join(suffixes)}, for the counts are those of {kind}."
        raise ValueError(msg)
    for path in files:
        if path.exists():
            _check_replaced(path, counts, asked)
    _check_folder(files.result)


def _check_replaced(path: Path, counts: Path | None, asked: dict[str, Any]) -> None:
    is_counts = counts is not None and path.samefile(counts)
    what = "is the file of the counts" if is_counts else "exists"
    if not asked["force"]:
        msg = f"--output: {path} {what}. Name another file, or add --force to replace it."
        raise FileExistsError(msg)
    lossy = [name for name in ("backed", "raw") if asked[name]]
    if is_counts and lossy:
        msg = f"--output: {path} {what}, and with --{lossy[0]} not all of it is written again. Name another file."
        raise FileExistsError(msg)
    if path.is_dir() and not (path.suffix == ".zarr" and any((path / name).exists() for name in _ZARR)):
        msg = f"--output: {path} is a folder. Name another file."
        raise IsADirectoryError(msg)


def _check_folder(output: Path) -> None:
    """Write something there: permissions do not tell, neither root's nor those of disks that are mounted read-only."""
    there = next(folder for folder in output.parents if folder.exists())
    try:
        with TemporaryDirectory(prefix=f".{output.stem}-", dir=there):
            pass
    except OSError as error:
        msg = f"--output {output} can't be written: {there}: {error.strerror or error}. Name another folder."
        raise OSError(msg) from error
