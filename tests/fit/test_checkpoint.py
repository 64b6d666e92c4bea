"""A fit that is interrupted and taken up again gives the bits of one that is not."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import sc_ldvae
from sc_ldvae.counts import _order
from sc_ldvae.engine import AutogradEngine
from sc_ldvae.engine._fused import FusedEngine
from sc_ldvae.fit import _checkpoint, _course

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

MODES: dict[str, dict[str, Any]] = {
    "adaptive": {"batch_key": "batch", "max_epochs": 50},
    "every-factor": {"loadings_prior": None, "max_epochs": 6},
    "no-held-out": {"train_size": 1.0, "max_epochs": 6, "dispersion": "gene-cell"},
    "early-stop": {"lr": 0.5, "loadings_prior": None, "max_epochs": 40},
}
N_STEPS = {"adaptive": 300, "every-factor": 36, "no-held-out": 36, "early-stop": 240}


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return sc_ldvae.datasets.simulate(200, 30, 2, n_batches=2, mean_library=200, rng=0)


def fit(counts: AnnData, mode: str, **options: Any) -> AnnData:
    adata = counts.copy()
    sc_ldvae.tl.ldvae(adata, 4, batch_size=32, n_hidden=8, progress=False, **MODES[mode], **options)
    return adata


def check_same(adata: AnnData, expected: AnnData) -> None:
    for key in ("X_ldvae", "X_ldvae_variance"):
        np.testing.assert_array_equal(adata.obsm[key], expected.obsm[key])
    np.testing.assert_array_equal(adata.varm["ldvae_loadings_se"], expected.varm["ldvae_loadings_se"])
    assert adata.uns["ldvae"]["checksum"] == expected.uns["ldvae"]["checksum"]


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Fits until a step, whose end is never reached, and keeps the state before it."""

    def run(counts: AnnData, mode: str, at: int, **options: Any) -> None:
        with monkeypatch.context() as patch:
            for engine in (FusedEngine, AutogradEngine):
                patch.setattr(engine, "step", dying(engine.step, at, patch))
            with pytest.raises(Killed):
                fit(counts, mode, **options)

    return run


def dying(step: Callable[..., Any], at: int, patch: pytest.MonkeyPatch) -> Callable[..., Any]:
    n = 0

    def stepped(*args: Any, **kwargs: Any) -> Any:
        nonlocal n
        n += 1
        if n > at:
            raise Killed
        if n == at:
            patch.setattr(_course, "_BETWEEN_CHECKPOINTS", -1)
        return step(*args, **kwargs)

    return stepped


@pytest.mark.parametrize("mode", MODES)
def test_it_goes_on_to_the_same_bits_from_anywhere(
    mode: str, counts: AnnData, interrupted: Callable[..., None], tmp_path: Path
) -> None:
    expected, path = fit(counts, mode), tmp_path / "state.npz"
    n_steps = N_STEPS[mode]
    moments = np.random.default_rng(0).integers(1, n_steps, 2).tolist()
    # In the first step, at the end of a round, and where factors have just been chosen.
    for at in {0, 6, round(0.45 * n_steps), *moments} & set(range(n_steps - 60 if mode == "early-stop" else n_steps)):
        path.unlink(missing_ok=True)
        interrupted(counts, mode, at, checkpoint=path)
        check_same(fit(counts, mode, checkpoint=path, resume=True), expected)


def test_it_may_be_interrupted_again_and_again(
    counts: AnnData, interrupted: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "state.npz"
    for _ in range(4):
        interrupted(counts, "every-factor", 7, checkpoint=path, resume=True)
    check_same(fit(counts, "every-factor", checkpoint=path, resume=True), fit(counts, "every-factor"))


def test_in_an_epoch_of_several_buffers(
    counts: AnnData, interrupted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_BLOCKS", 8), ("_FEWEST", 64), ("_MOST", 64)):
        monkeypatch.setattr(_order, name, value)
    expected, path = fit(counts, "every-factor"), tmp_path / "state.npz"
    for at in (1, 3, 8):
        interrupted(counts, "every-factor", at, checkpoint=path)
        check_same(fit(counts, "every-factor", checkpoint=path, resume=True), expected)


def test_with_autograd(
    counts: AnnData, interrupted: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sc_ldvae.engine._engine.can_be_fused", lambda _: False)
    expected, path = fit(counts, "adaptive"), tmp_path / "state.npz"
    interrupted(counts, "adaptive", 200, checkpoint=path)
    check_same(fit(counts, "adaptive", checkpoint=path, resume=True), expected)


def test_a_fit_that_is_done_is_only_finished(counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.npz"
    expected = fit(counts, "every-factor", checkpoint=path)
    check_same(expected, fit(counts, "every-factor"))
    monkeypatch.setattr(FusedEngine, "step", dying(FusedEngine.step, 0, monkeypatch))
    check_same(fit(counts, "every-factor", checkpoint=path, resume=True), expected)


def test_a_second_attempt_goes_on_as_such(
    counts: AnnData, interrupted: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, options = tmp_path / "state.npz", {"lr": 20.0}
    with caplog.at_level(logging.WARNING, "sc_ldvae"):
        expected = fit(counts, "every-factor", **options)
    assert "Trained again" in caplog.text
    # Five steps into the second attempt: the first diverges in the first epoch.
    interrupted(counts, "every-factor", N_STEPS["every-factor"] // 6 + 5, checkpoint=path, **options)
    with np.load(path) as state:
        assert (state["position/attempt"], state["position/n_steps"]) == (1, 5)
    caplog.clear()
    check_same(fit(counts, "every-factor", checkpoint=path, resume=True, **options), expected)
    assert not caplog.messages


def test_without_a_file_it_begins(counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    check_same(fit(counts, "every-factor", checkpoint=str(path), resume=True), fit(counts, "every-factor"))
    assert [one.name for one in tmp_path.iterdir()] == ["state.npz"]


def test_without_resume_it_begins_anew(counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    path.write_bytes(b"anything")
    check_same(fit(counts, "every-factor", checkpoint=path), fit(counts, "every-factor"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dropout_rate": 0.2}, r"dropout_rate \(0\.1 in place of 0\.2\)"),
        ({"rng": 3}, r"held-out cells .*rng"),
        ({"lr": 0.01}, r"lr \(0\.06 in place of 0\.01\)"),
        ({"batch_key": "batch"}, r"annotations of the cells .*n_batch \(0 in place of 2\)"),
        ({"mask_var": np.arange(30) > 3}, r"genes \(30 in place of 26\), counts"),
    ],
    ids=["option", "seed", "schedule", "covariates", "genes"],
)
def test_a_state_of_another_fit_is_refused(options: dict[str, Any], said: str, counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    fit(counts, "every-factor", checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"^checkpoint: .*state\.npz is of another fit\. What differs: {said}"):
        fit(counts, "every-factor", checkpoint=path, resume=True, **options)
    assert path.read_bytes() == before


def test_other_counts_and_versions_are_refused(
    counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "state.npz", counts.copy()
    fit(counts, "every-factor", checkpoint=path)
    # Totals of the cells are the same.
    other.X = np.ascontiguousarray(other.X.toarray()[:, ::-1])
    with pytest.raises(ValueError, match=r"What differs: counts"):
        fit(other, "every-factor", checkpoint=path, resume=True)
    monkeypatch.setattr(_checkpoint, "version", lambda package: f"{package} 99")
    with pytest.raises(ValueError, match=r"What differs: version of torch .*, version of numba"):
        fit(counts, "every-factor", checkpoint=path, resume=True)


def test_damage_is_refused(counts: AnnData, tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    fit(counts, "every-factor", checkpoint=path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    said = r"^checkpoint: .*state\.npz is (damaged \(|of another fit)"
    damaged = [whole[:n] for n in (0, 10, len(whole) // 2, len(whole) - 1)]
    with np.load(path) as stored:
        sizes = {name: stored[name].nbytes for name in stored.files}
    # A bit in the values of the largest array, wherever it is.
    largest = max(sizes, key=lambda name: sizes[name])
    start = whole.index(f"{largest}.npy".encode()) + 200
    for _ in range(8):
        flipped = bytearray(whole)
        flipped[start + int(rng.integers(sizes[largest] - 200))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            fit(counts, "every-factor", checkpoint=path, resume=True)


def test_a_disk_that_is_full_at_once_ends_the_fit_and_later_does_not(
    counts: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    n, path = 0, tmp_path / "state.npz"
    original = np.savez

    def savez(*args: Any, **kwargs: Any) -> None:
        nonlocal n
        n += 1
        if n > room:
            msg = "No space left on device"
            raise OSError(msg)
        original(*args, **kwargs)

    monkeypatch.setattr(_checkpoint.np, "savez", savez)
    room = 0
    with pytest.raises(OSError, match=r"^checkpoint: the state .* could not be written to .*No space left"):
        fit(counts, "every-factor", checkpoint=path)
    assert not list(tmp_path.iterdir())
    n, room = 0, 2
    with caplog.at_level(logging.WARNING, "sc_ldvae"):
        adata = fit(counts, "every-factor", checkpoint=path)
    assert "No space left on device. The training goes on" in caplog.text
    monkeypatch.undo()
    expected = fit(counts, "every-factor")
    check_same(adata, expected)
    # The last state that was written whole.
    check_same(fit(counts, "every-factor", checkpoint=path, resume=True), expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resume": True}, r"^resume=True was given without a checkpoint"),
        ({"checkpoint": "no/such/folder.npz"}, r"^checkpoint: no/such/folder\.npz is no file in an existing folder"),
        ({"checkpoint": "."}, r"^checkpoint: \. is no file in an existing folder"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], said: str, counts: AnnData) -> None:
    with pytest.raises(ValueError, match=said):
        fit(counts, "every-factor", **options)


PROGRAM = """
import sys, sc_ldvae
from sc_ldvae.fit import _course
_course._BETWEEN_CHECKPOINTS = -1
adata = sc_ldvae.datasets.simulate(200, 30, 2, n_batches=2, mean_library=200, rng=0)
sc_ldvae.tl.ldvae(adata, 4, batch_size=32, n_hidden=8, progress=False, checkpoint=sys.argv[1], **eval(sys.argv[2]))
"""


def test_after_a_kill(counts: AnnData, tmp_path: Path) -> None:
    path, options = tmp_path / "state.npz", MODES["every-factor"] | {"max_epochs": 100}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), repr(options)])
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    assert process.wait() != 0
    with np.load(path) as state:
        assert 0 <= int(state["position/n_steps"]) < 600
        assert json.loads(str(state["fingerprint"]))["max_epochs"] == "100"
    adata, expected = counts.copy(), counts.copy()
    for one, more in ((adata, {"checkpoint": path, "resume": True}), (expected, {})):
        sc_ldvae.tl.ldvae(one, 4, batch_size=32, n_hidden=8, progress=False, **options, **more)
    check_same(adata, expected)
