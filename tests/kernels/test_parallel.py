"""Fits in threads, forks and other processes, on every layer of threads that numba has here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sc_ldvae.kernels import _threads as threads

if TYPE_CHECKING:
    from pathlib import Path

# Minibatches are cut into slices: two threads have something to do.
SCRIPT = """
import multiprocessing, os, sys, threading
import sc_ldvae

def fit(_=None):
    adata = sc_ldvae.datasets.simulate(150, 700, 2, rng=0)
    sc_ldvae.tl.ldvae(adata, 2, max_epochs=2, n_hidden=16, progress=False)
    return adata.obsm["X_ldvae"].tobytes()

def in_threads():
    results, start = [], threading.Barrier(2)
    def one():
        start.wait()
        results.append(fit())
    both = [threading.Thread(target=one) for _ in range(2)]
    for thread in both: thread.start()
    for thread in both: thread.join()
    return results

def forked():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return [pool.apply_async(fit).get(100)]

def spawned():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return [pool.apply_async(fit).get(100)]

def in_loky():
    from joblib import Parallel, delayed
    return Parallel(2)(delayed(fit)() for _ in range(2))

if __name__ == "__main__":
    first = fit()
    for way in sys.argv[1:]:
        assert set(globals()[way]()) == {first}, way
    assert fit() == first
    import numba
    assert numba.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
"""


def run(tmp_path: Path, *arguments: str, code: str = SCRIPT, **environment: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(code)
    command, environ = [sys.executable, str(path), *arguments], {**os.environ, "NUMBA_NUM_THREADS": "2"}
    environ |= {"OMP_NUM_THREADS": "2", **environment}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("layer", "ways"),
    [
        pytest.param("omp", ("in_threads", "forked", "spawned"), id="omp"),
        pytest.param("workqueue", ("in_threads", "forked", "in_loky"), id="workqueue"),
        pytest.param(
            "tbb",
            ("in_threads", "forked"),
            marks=pytest.mark.skipif(importlib.util.find_spec("tbb") is None, reason="tbb is not installed"),
            id="tbb",
        ),
    ],
)
def test_same_bits_in_threads_forks_and_processes(tmp_path: Path, layer: str, ways: tuple[str, ...]) -> None:
    run(tmp_path, *ways, NUMBA_THREADING_LAYER=layer)


def test_a_kernel_starts_the_threads_that_a_kept_part_of_it_needs(tmp_path: Path) -> None:
    """Each process compiles another kernel, linked with what the first has kept; then one loads them."""
    code = """
import sys
import numpy as np
from sc_ldvae import kernels

def adam_update():
    rates, others = np.ones(1, np.float32), np.ones(4, np.float32)
    kernels.adam_update(1, np.array([0]), np.array([3]), *np.zeros((4, 3), np.float32), rates, *others)

def multiply():
    one = np.ones(1, np.float32)
    out = np.zeros((1, 1), np.float32)
    kernels.multiply(1, np.array([0, 1]), np.zeros(1, np.int32), one, one[:, None], out)
    assert out == 1

for name in sys.argv[1:]:
    globals()[name]()
"""
    for names in (["adam_update"], ["multiply"], ["multiply"], ["adam_update", "multiply"]):
        run(tmp_path, *names, code=code, NUMBA_CACHE_DIR=str(tmp_path / "cache"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork that the package did not see is not noticed")
def test_a_fork_of_a_process_that_has_threads_of_others_alone(tmp_path: Path) -> None:
    """The package is imported in the child; torch has threads in the parent, and no fit has run."""
    code = """
import multiprocessing, torch

def work():
    import sc_ldvae
    adata = sc_ldvae.datasets.simulate(400, 1100, 2, rng=0)
    sc_ldvae.tl.ldvae(adata, 2, max_epochs=2, progress=False)
    assert torch.get_num_threads() == 2, torch.get_num_threads()

if __name__ == "__main__":
    torch.ones(1000, 1000).exp().sum()
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(100)
    assert child.exitcode == 0, child.exitcode
"""
    run(tmp_path, code=code)


def test_openmp_is_left_to_torch_on_macos(tmp_path: Path) -> None:
    code = """
import sys
import numba, torch
from sc_ldvae.kernels import own_threads
from sc_ldvae.kernels._threads import layer
sys.platform = "darwin"
before = numba.config.THREADING_LAYER
with own_threads():
    assert layer() == numba.threading_layer() == "workqueue"
assert numba.config.THREADING_LAYER == before == "default"
"""
    run(tmp_path, code=code)


def test_openmp_that_others_have_started_is_not_used_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.numba, "threading_layer", lambda: "omp")
    assert threads.layer() == "omp"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert threads.layer() == ""


def test_the_package_alone_notices_forks() -> None:
    code = "import sys, sc_ldvae; assert 'sc_ldvae._forks' in sys.modules; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
