"""Several processes that fit together."""

from __future__ import annotations

import runpy
import subprocess
import sys
import threading
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sc_ldvae import fit
from sc_ldvae.counts import _order
from sc_ldvae.engine import Ranks
from sc_ldvae.fit import _fit

PROGRAM = Path(__file__).with_name("ranks.py")
program = SimpleNamespace(**runpy.run_path(str(PROGRAM)))
_SECONDS = 300


def run(task: str, folder: Path, n: int) -> subprocess.CompletedProcess[str]:
    """The task in so many processes, as torchrun starts them; hangs end in an error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    return subprocess.run(
        [*command, str(PROGRAM), task, str(folder)], timeout=_SECONDS, capture_output=True, text=True, check=False
    )


class Baton(Ranks):
    """Does in threads of one process, one at a time, what processes do: sums in double precision, in their order."""

    def __init__(self, rank: int, n: int, shared: dict[str, Any]) -> None:
        self.rank, self.n, self._shared = rank, n, shared

    def _exchanged(self, own: Any) -> list[Any]:
        table, barrier, turn = (self._shared[name] for name in ("table", "barrier", "turn"))
        table[self.rank] = own
        turn.release()
        barrier.wait()
        everything = [table[rank] for rank in range(self.n)]
        barrier.wait()
        turn.acquire()
        return everything

    def average(self, *values: Any) -> None:
        tensors = [torch.as_tensor(one) for one in values]
        everything = self._exchanged([one.detach().double().clone() for one in tensors])
        for i, tensor in enumerate(tensors):
            tensor.detach().copy_(sum(of_rank[i] for of_rank in everything) / self.n)

    def mean(self, value: float, weight: float) -> float:
        everything = self._exchanged((value, weight))
        return sum(one * own for one, own in everything) / sum(own for _, own in everything)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._exchanged(values.clone()))

    def shared(self, make: Any) -> Any:
        # Each has its own, as other processes have.
        return deepcopy(self._exchanged(make() if self.rank == 0 else None)[0])


def by_one_process(mode: str, n: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The same fit by one process, that takes the part of each in turn."""
    shared = {"table": {}, "barrier": threading.Barrier(n), "turn": threading.Lock()}
    found: dict[int, dict[str, np.ndarray]] = {}

    class Context:
        def __init__(self, _: Any) -> None:
            self._rank = int(threading.current_thread().name)

        def __enter__(self) -> Ranks:
            return Baton(self._rank, n, shared)

        def __exit__(self, *_: object) -> None:
            """Nothing to close."""

    def work(rank: int) -> None:
        with shared["turn"]:
            found[rank] = program.results(program.fit(mode))

    with monkeypatch.context() as patch:
        patch.setattr(_fit, "ranks_of", Context)
        threads = [threading.Thread(target=work, args=(rank,), name=str(rank)) for rank in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_SECONDS)
    assert len(found) == n
    return found[0]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folders = {}
    for n in (2, 4):
        folders[n] = tmp_path_factory.mktemp(f"ranks{n}")
        done = run("fits", folders[n], n)
        assert done.returncode == 0, done.stderr
    return folders


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_order, "_LARGEST_BLOCK", 8)


@pytest.mark.parametrize("mode", program.MODES)
@pytest.mark.parametrize("n", [2, 4])
def test_processes_are_one_that_averages_their_gradients(
    mode: str, n: int, together: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_one_process(mode, n, monkeypatch)
    for rank in range(n):
        with np.load(together[n] / f"{mode}.{rank}.npz") as found:
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("n", [2, 4])
def test_they_are_about_as_good_as_one(n: int, together: dict[int, Path]) -> None:
    one = program.results(program.fit("adaptive"))
    with np.load(together[n] / "adaptive.0.npz") as found:
        assert found["elbo_held_out"] == pytest.approx(one["elbo_held_out"], rel=0.01)
        np.testing.assert_array_equal(found["held_out"], one["held_out"])
        assert found["loadings"].any(0).sum() == one["loadings"].any(0).sum()


@pytest.mark.parametrize("n", [2, 4])
def test_they_go_on_together(n: int, together: dict[int, Path]) -> None:
    with np.load(together[n] / "every-factor.0.npz") as whole:
        for rank in range(n):
            with np.load(together[n] / f"resumed.{rank}.npz") as resumed:
                np.testing.assert_array_equal(resumed["latent"], whole["latent"])
                np.testing.assert_array_equal(resumed["elbo"], whole["elbo"])


@pytest.mark.parametrize("n", [2, 4])
def test_what_each_would_draw_is_drawn_once(n: int, together: dict[int, Path]) -> None:
    with np.load(together[n] / "any-seed.0.npz") as first:
        for rank in range(1, n):
            with np.load(together[n] / f"any-seed.{rank}.npz") as other:
                assert other["checksum"] == first["checksum"]
                np.testing.assert_array_equal(other["held_out"], first["held_out"])


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failing")
    for name in ("differing", "error"):
        (folder / name).mkdir()
    assert run("failing", folder, 2).returncode != 0
    return folder


def check_heard(folder: Path) -> None:
    said = (folder / "said.0").read_text()
    assert said.startswith("ConnectionError: Another process of this fit has failed, was killed or can't be reached")


def check_state(path: Path) -> None:
    """What was kept before is whole."""
    with np.load(path) as state:
        assert all(np.isfinite(state[name]).all() for name in state.files if state[name].dtype.kind == "f")


def test_where_one_fails_none_waits(failed: Path) -> None:
    check_heard(failed / "error")
    assert (failed / "error" / "said.1").read_text() == "OSError: X is not on disk any more."
    check_state(failed / "error" / "state.npz")


def test_where_one_is_killed_none_waits(tmp_path: Path) -> None:
    assert run("killed", tmp_path, 2).returncode != 0
    check_heard(tmp_path)
    check_state(tmp_path / "state.npz")


def test_processes_with_other_counts_are_refused(failed: Path) -> None:
    check_heard(failed / "differing")
    said = (failed / "differing" / "said.1").read_text()
    assert said.startswith(
        "ValueError: Process 1 was asked for another fit than process 0. What differs: cells, counts"
    )


def test_alone_nothing_is_exchanged() -> None:
    alone, values = Ranks(), torch.arange(3.0)
    alone.average(values)
    assert values.tolist() == [0, 1, 2]
    assert (alone.mean(0.1, 7), alone.shared(lambda: "made"), fit.place()) == (0.1, "made", (0, 1))
    assert alone.gathered(values).tolist() == [[0, 1, 2]]
