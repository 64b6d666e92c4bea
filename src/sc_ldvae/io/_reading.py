"""Whatever a library says of a damaged or foreign file, as one kind of error."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sc_ldvae.io._kinds import what_it_is

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_LETTERS = 300


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors into an OSError that names the file and says what it seems to be."""
    try:
        yield
    except (ImportError, Warning):
        # What is missing is a package; and who makes warnings errors wants to see them.
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:_MOST_LETTERS]
        msg = (
            f"{path} can't be read as a {path.suffix} file. {what_it_is(path)} "
            f"(Said of it: {type(error).__name__}: {said})"
        )
        raise OSError(msg) from error
