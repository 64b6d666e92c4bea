"""A cache of machine code that fails in one way or another, and results that do not care."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any

import numba
import pytest
from numba.core.caching import IndexDataCacheFile

from sc_ldvae.kernels import _jit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FLIPPED = 0xFF


def twice(x):  # noqa: ANN001, ANN201
    return 2 * x


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """The function as a kernel of a process that has not compiled it yet."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return lambda: _jit.kernel(twice)


def loaded(compiled: Any) -> bool:
    assert compiled(21) == 42
    return bool(compiled.stats.cache_hits)


def flipped(content: bytes) -> bytes:
    """With one byte of the machine code changed: it is in the middle, and pickle does not see it."""
    at = content.index(b"\x7fELF") + 1000 if b"\x7fELF" in content else len(content) // 2
    return content[:at] + bytes([content[at] ^ _FLIPPED]) + content[at + 1 :]


def test_it_is_used(fresh: Callable[[], Any]) -> None:
    assert not loaded(fresh())
    assert loaded(fresh())


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[:100], id="cut"),
        pytest.param(lambda content: b"\x93" * len(content), id="garbage"),
        pytest.param(flipped, id="one-byte"),
    ],
)
def test_damage_is_mended(
    fresh: Callable[[], Any], tmp_path: Path, ending: str, damage: Callable[[bytes], bytes]
) -> None:
    loaded(fresh())
    (path,) = tmp_path.rglob(f"*.{ending}")
    path.write_bytes(damage(path.read_bytes()))
    if (ending, damage) != ("nbi", flipped):
        # An index with another name for the same code may still be one.
        assert not loaded(fresh())
    assert loaded(fresh()) or loaded(fresh())


@pytest.mark.parametrize("step", ["_save_data", "_save_index", "_load_index", "_load_data"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO], ids=["full", "forbidden", "broken"])
def test_a_disk_that_fails_is_done_without(
    fresh: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
    code: int,
) -> None:
    if step.startswith("_load"):
        loaded(fresh())

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(IndexDataCacheFile, step, fail)
    with caplog.at_level(logging.DEBUG, "sc_ldvae"):
        assert not loaded(fresh())
    # numba itself takes data that can't be read for data that were removed.
    assert step == "_load_data" or os.strerror(code) in caplog.text


def test_no_folder_can_be_found(fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("numba.core.caching.tempfile.TemporaryFile", fail)
    assert not loaded(fresh())
