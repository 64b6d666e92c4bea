"""Files that are to be written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sc_ldvae.record import check_suffix

if TYPE_CHECKING:
    from os import PathLike


def checkpoint_of(checkpoint: str | PathLike[str] | None, *, resume: bool) -> Path | None:
    """The file that keeps the state of a training.

    Raises
    ------
    ValueError
        If there is no such folder, or nothing to resume from.
    """
    if checkpoint is None:
        if resume:
            msg = "resume=True was given without a checkpoint. Name the file that has the state of the training."
            raise ValueError(msg)
        return None
    path = Path(checkpoint)
    if path.is_dir() or not path.parent.is_dir():
        msg = f"checkpoint: {path} is no file in an existing folder. Name one, such as 'fit.npz'."
        raise ValueError(msg)
    return path


def new_file(path: str | PathLike[str] | None, key_added: str | None) -> Path | None:
    """The file that gets a result in place of the object.

    Raises
    ------
    ValueError
        If a layer is to get it, too, if there is such a file already, or no such folder.
    """
    if path is None:
        return None
    if key_added is not None:
        msg = "path and key_added were both given. Pass one of them: a result goes into a file or into a layer."
        raise ValueError(msg)
    path = Path(path)
    check_suffix(path)
    if path.exists():
        msg = f"path: {path} exists. Name another file, or remove it first."
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"path: there is no folder {path.parent}. Make it first."
        raise ValueError(msg)
    return path
