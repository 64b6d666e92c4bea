"""A picture as a file."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sc_ldvae._said import said

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_save(save: object) -> None:
    """Refuse what names no file that can be written, before anything is drawn.

    Raises
    ------
    TypeError
        If it is no name.
    ValueError
        If it is the name of no file, or of a kind that can't be written.
    OSError
        If its folder is missing, or if it is a folder itself.
    """
    if save is None:
        return
    if not isinstance(save, str | os.PathLike) or not isinstance(os.fspath(save), str):
        msg = (
            f"save={said(save)} is a {type(save).__name__}, but must be the name of the file to write, such as "
            "save='plot.png'. There is no default name."
        )
        raise TypeError(msg)
    path = Path(save)
    if not path.name or "\0" in str(path) or (path.name.startswith(".") and not path.suffix):
        msg = f"save={str(save)!r} names no file. Give a whole name, such as save='plot.png'."
        raise ValueError(msg)
    _check_format(save, path)
    _check_place(save, path)


def _check_format(save: object, path: Path) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    known = FigureCanvasBase.get_supported_filetypes()
    # Without a suffix matplotlib adds its default one.
    if path.suffix.strip(".") and path.suffix.removeprefix(".").lower() not in known:
        msg = f"save={str(save)!r} has the suffix {path.suffix!r}, but must have one of {', '.join(sorted(known))}."
        raise ValueError(msg)


def _check_place(save: object, path: Path) -> None:
    try:
        is_folder, has_folder = path.is_dir(), path.parent.is_dir()
    except OSError as error:
        msg = f"save={str(save)!r} can't be written: {error}."
        raise OSError(msg) from error
    if is_folder:
        msg = f"save={str(save)!r} is a folder. Give the name of a file in it."
        raise IsADirectoryError(msg)
    if not has_folder:
        msg = f"save={str(save)!r} can't be written, for there is no folder {path.parent}. Make it first."
        raise FileNotFoundError(msg)


def write(figure: Figure, save: str | os.PathLike[str]) -> None:
    """Write the whole picture or nothing: it is drawn elsewhere first.

    Raises
    ------
    ValueError
        If the figure is too large for a file of this kind, or if the kind needs what is not installed.
    OSError
        If the file can't be written.
    """
    path = Path(save)
    try:
        with TemporaryDirectory() as folder:
            figure.savefig(Path(folder, path.name), bbox_inches="tight", dpi=200)
            # Some formats have files beside them.
            for file in sorted(Path(folder).iterdir()):
                _copy(file, path.with_name(file.name))
    except OSError as error:
        msg = f"save={str(save)!r} can't be written: {error}."
        raise OSError(msg) from error
    except (RuntimeError, ValueError) as error:
        msg = f"save={str(save)!r} can't be drawn: {error} Show less at once, or choose another format."
        raise ValueError(msg) from error


def _copy(file: Path, path: Path) -> None:
    new = not path.exists()
    try:
        copyfile(file, path)
    except BaseException:
        if new:
            path.unlink(missing_ok=True)
        raise
