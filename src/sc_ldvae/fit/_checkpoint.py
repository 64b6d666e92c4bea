"""A training that can be taken up where it was left: everything that it is made of, in one file."""

from __future__ import annotations

import json
import logging
import os
import zipfile
import zlib
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

import sc_ldvae
from sc_ldvae.counts import evenly, gene_totals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sc_ldvae._typing import Arrays, Mask
    from sc_ldvae.engine import Ranks
    from sc_ldvae.fit._request import Request

# Packages whose other versions may give other bits.
_PACKAGES = ("torch", "numba", "numpy", "scipy")
_CELLS, _LONGEST_SHOWN = 2000, 40
_FINGERPRINT = "fingerprint"
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)
_log = logging.getLogger("sc_ldvae")


class Checkpoint:
    """An ``.npz`` file that always holds a whole state of one training, or is not there.

    Parameters
    ----------
    path
        The file.
    fingerprint
        What the training is of, in words; a state of another one is refused.
    resume
        Whether to go on from the state in the file, if there is one.

    Raises
    ------
    ValueError
        If the file is damaged, or of another training. The sentence says what differs.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, str], *, resume: bool) -> None:
        self._path, self._fingerprint, self._written = path, dict(fingerprint), False
        self.found: dict[str, NDArray[Any]] | None = None
        if resume and path.exists():
            self.found = self._checked(_read(path))

    @property
    def attempt(self) -> int:
        """In which of the attempts at a training the state was found; 0 if there is none."""
        return 0 if self.found is None else int(self.found["position/attempt"])

    def write(self, state: Arrays) -> None:
        """Replace what is in the file.

        Raises
        ------
        OSError
            If it can't be written the first time. Later on the file keeps what it has, and a warning is logged.
        """
        part = self._path.with_name(self._path.name + ".part")
        try:
            with part.open("wb") as file:
                np.savez(file, **{_FINGERPRINT: np.array(json.dumps(self._fingerprint))}, **state)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path)
        except OSError as error:
            part.unlink(missing_ok=True)
            msg = f"checkpoint: the state of the training could not be written to {self._path}: {error}."
            if not self._written:
                raise OSError(msg) from error
            _log.warning("%s The training goes on, and so does the last state in the file, if there is one.", msg)
        self._written = True

    def _checked(self, content: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        theirs = json.loads(str(content.pop(_FINGERPRINT)))
        differing = [name for name, value in self._fingerprint.items() if theirs.get(name) != value]
        if differing:
            pairs = [
                f"{name} ({_shown(theirs.get(name))} in place of {_shown(self._fingerprint[name])})"
                for name in differing
            ]
            msg = (
                f"checkpoint: {self._path} is of another fit. What differs: {', '.join(pairs)}. Ask for the same fit "
                "as before, name another file, or begin anew with resume=False."
            )
            raise ValueError(msg)
        return content


def fingerprint_of(request: Request, n_ranks: int) -> dict[str, str]:
    """What makes a training by so many processes the one that it is, beside the code and what is drawn."""
    cells, source = request.cells, request.cells.source
    some = gene_totals(source, evenly(np.arange(source.n_obs), _CELLS))
    asked = {**asdict(request.options), **asdict(request.levels), **asdict(request.schedule)}
    if request.blocks:
        kinds = [(block.modality, block.gene_likelihood, block.dispersion) for block in request.blocks]
        asked |= {"modalities": kinds, "modality_weights": request.weights, "hide_modality": request.hide_modality}
    return {
        "cells": str(source.n_obs),
        "genes": str(source.n_vars),
        "counts": _digest(source.totals, some),
        "annotations of the cells": _digest(*(cells.annotations[name] for name in sorted(cells.annotations))),
        "kind of device": request.device.type,
        "processes": str(n_ranks),
        **{name: str(value) for name, value in asked.items()},
        "version of sc-ldvae": sc_ldvae.__version__,
        **{f"version of {package}": version(package) for package in _PACKAGES},
    }


def fingerprint_of_draws(held_out: Mask, rng: np.random.Generator) -> dict[str, str]:
    """What was drawn before the training, and what will be."""
    state = np.array(json.dumps(rng.bit_generator.state, default=str))
    return {"held-out cells": _digest(held_out), "rng": _digest(state)}


def check_same(fingerprint: Mapping[str, str], ranks: Ranks) -> None:
    """Refuse processes that were asked for different fits.

    Raises
    ------
    ValueError
        In all of them but the first, which learns of it as they end.
    """
    first = ranks.shared(lambda: fingerprint)
    differing = [name for name, value in fingerprint.items() if first[name] != value]
    if differing:
        msg = (
            f"Process {ranks.rank} was asked for another fit than process 0. What differs: {', '.join(differing)}. All "
            "processes of a fit have to be given the same counts and arguments."
        )
        raise ValueError(msg)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # Every array is read, and so checked against its checksum.
        with path.open("rb") as file, np.load(file) as stored:
            content = {name: stored[name] for name in stored.files}
        json.loads(str(content[_FINGERPRINT]))
    except _DAMAGE as error:
        msg = f"checkpoint: {path} is damaged ({error}). Remove it, or begin anew with resume=False."
        raise ValueError(msg) from error
    return content


def _digest(*arrays: NDArray[Any]) -> str:
    digest = blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _shown(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) <= _LONGEST_SHOWN else f"{value[:_LONGEST_SHOWN]}..."
