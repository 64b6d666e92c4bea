"""Kernels that have to be compiled: who is told, what a second process does, where machine code is looked for."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
import pytest

import sc_ldvae
from sc_ldvae.kernels import Compilation, _cache, _jit, compiled_with
from sc_ldvae.kernels import _compiling as compiling

if TYPE_CHECKING:
    from collections.abc import Callable

# What of ours is compiled, and what comes out.
FIT = """
import hashlib, json, sys
from numba.core import event
import sc_ldvae
from sc_ldvae import kernels

compiled = []

class Listener(event.Listener):
    def on_start(self, one):
        function = one.data["dispatcher"].py_func
        if function.__module__.startswith("sc_ldvae"):
            compiled.append(function.__name__)
    def on_end(self, one):
        pass

adata = sc_ldvae.datasets.simulate(300, 700, 2, gene_likelihood="poisson", rng=0)
adata.obs["group"] = ["a", "b"] * 150
with event.install_listener("numba:compile", Listener()):
    sc_ldvae.tl.ldvae(adata, 2, gene_likelihood="poisson", max_epochs=2, n_hidden=16, progress=False)
    if "tools" in sys.argv:
        sc_ldvae.tl.differential_expression(adata, "group", progress=False)
        sc_ldvae.tl.normalized_expression(adata, progress=False)
hits = kernels.count_loss._kernel.stats.cache_hits
bits = hashlib.sha256(adata.obsm["X_ldvae"].tobytes() + adata.varm["ldvae_loadings"].tobytes()).hexdigest()
print(json.dumps({"bits": bits, "compiled": compiled, "loaded": len(hits)}))
"""


def run(folder: Path, *arguments: str, threads: int) -> str:
    """In a process whose package has no machine code beside it."""
    package = Path(sc_ldvae.__file__).parent
    if not folder.exists():
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    numbers = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    environment = os.environ | numbers | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fit(folder: Path, *arguments: str, threads: int) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run(folder, "-c", FIT, *arguments, threads=threads))
    return result


def test_two_processes_compile_what_one_does_and_the_command_the_rest(tmp_path: Path) -> None:
    """Of a fit, the second one compiles what takes longest, and the first one finds it."""
    together = fit(tmp_path / "together", threads=2)
    assert "count_loss" not in together["compiled"]
    assert together["loaded"] == 1
    assert together["compiled"]
    run(tmp_path / "together", "-m", "sc_ldvae", "compile", "--gene-likelihood", "poisson", threads=2)
    after = fit(tmp_path / "together", "tools", threads=2)
    assert not after["compiled"]
    script = tmp_path / "fit.py"
    script.write_text(FIT)
    assert together["bits"] == after["bits"] == runpy.run_path(str(script))["bits"]


def doubled(x):  # noqa: ANN001, ANN201
    return 2 * x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_who_waits_is_told_once_around_all_that_is_compiled() -> None:
    told: list[str] = []

    def quadrupled(x):  # noqa: ANN001, ANN202
        return inner(inner(x))

    inner = _jit.kernel(doubled)
    outer = _jit.kernel(quadrupled)
    with compiled_with(Compilation(told.append)):
        assert outer(2) == 8
    assert len(told) == 2
    assert "once per machine" in told[0]
    assert told[1] == ""
    with compiled_with(Compilation(told.append)):
        assert _jit.kernel(doubled)(1) == 2
    assert len(told) == 2


def code_that(does: str) -> str:
    return f"names = {{}}; {does}"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import time; time.sleep(60)"], ids=["dies", "hangs"])
def test_what_the_second_process_fails_to_compile_the_first_one_does(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(compiling, "_LONGEST", 0.5)
    monkeypatch.setattr(compiling, "n_threads", lambda: 2)
    compilation = Compilation(lambda _: None, code_that(code), ["doubled"])
    with compiled_with(compilation):
        compilation.begin("another", lambda: None)
        assert compilation._process is not None
        assert _jit.kernel(doubled)(21) == 42
    # It does not outlive the call.
    assert compilation._process.poll() is not None


@pytest.mark.parametrize(
    ("executable", "n_threads", "names"),
    [
        ("/usr/bin/blender", 2, ["doubled"]),
        ("", 2, ["doubled"]),
        (sys.executable, 1, ["doubled"]),
        (sys.executable, 2, []),
    ],
    ids=["another program", "no program", "one thread", "nothing to do"],
)
def test_no_second_process_is_started_in_vain(
    monkeypatch: pytest.MonkeyPatch, executable: str, n_threads: int, names: list[str]
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(compiling, "n_threads", lambda: n_threads)
    compilation = Compilation(lambda _: None, code_that("pass"), names)
    assert compilation.begin("another", lambda: None) is None
    assert compilation._process is None


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[], Any]:
    """The function of a package, as a kernel of a process that has not compiled it yet."""
    path = tmp_path / "package" / "module.py"
    path.parent.mkdir()
    path.write_text("def tripled(x):\n    return 3 * x\n")

    def kernel() -> Any:
        spec = importlib.util.spec_from_file_location("module", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return _jit.kernel(module.tripled)

    return kernel


def loaded(compiled: Any) -> bool:
    assert compiled(14) == 42
    return bool(compiled.stats.cache_hits)


def test_what_was_compiled_at_the_installation_serves_who_keeps_kernels_elsewhere(
    installed: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    assert not loaded(installed())
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "elsewhere"))
    assert loaded(installed())


def test_where_nothing_can_be_written_it_is_said_once_what_to_do(
    installed: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr("numba.core.caching.tempfile.TemporaryFile", fail)
    monkeypatch.setattr(_cache._unkept, "said", False)
    with caplog.at_level(logging.WARNING, "sc_ldvae"):
        assert not loaded(installed())
        assert not loaded(installed())
    (said,) = caplog.messages
    assert str(tmp_path) in said
    assert "NUMBA_CACHE_DIR" in said
    assert "python -m sc_ldvae compile" in said
