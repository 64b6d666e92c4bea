"""Everything on tiny data, so that nothing rots. Its numbers mean nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from benchmarks import process
from benchmarks.data import prepared
from benchmarks.fit import fit
from benchmarks.gpu import gpu
from benchmarks.large import large
from benchmarks.runs import Session
from benchmarks.scale import scale
from benchmarks.start_up import start_up
from benchmarks.step import step
from benchmarks.tasks import tasks

if TYPE_CHECKING:
    from pathlib import Path

_DATA = ("pbmc68k",)
_FILES = ("methods", "match", "cross_check", "step", "scaling", "large", "start_up", "phases", "tasks")


class _Here(Session):
    """Everything in this process: it imports and compiles once, and its numbers are not looked at."""

    def call(self, target: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401  JSON values
        return json.loads(json.dumps(process.answer(target, json.dumps(request)))) | {"process_seconds": 1.0}


def smoke(session: Session) -> None:
    """Run every command once, in about two minutes.

    Raises
    ------
    FileNotFoundError
        If a table or a figure is missing.
    """
    session = _Here(session.out, session.threads)
    file, threads = prepared("pbmc68k", None, session.out), session.threads
    _with_two_groups(file)
    fit(session, _DATA, ("ldvae", "linear_scvi", "pca", "nmf", "glmpca"), repeats=1, epochs=2)
    step(session, _DATA, rounds=1)
    gpu(session, sizes=((300, 200),))
    scale(session, cells=(300,), genes=(), methods=("ldvae", "linear_scvi"))
    large(session, sizes=(2000,), n_genes=200, ways=("memory", "disk"), repeats=1)
    start_up(session, _DATA, repeats=1)
    tasks(session, "pbmc68k", repeats=1)
    path = str(file)
    session.call("benchmarks.stability:predict", path=path, half=0, threads=threads, n_seeds=2)
    session.call("benchmarks.stability:scored", path=path, n_latent=3, prior="adaptive", threads=threads, n_seeds=2)
    session.call("benchmarks.extend:run", path=path, repeats=1, threads=threads)
    tiny = {"n_obs": 200, "n_vars": 60, "n_latent": 2}
    session.call("benchmarks.selection:fitted", path=path, n_latent=3, prior="adaptive", seed=0, threads=threads)
    session.call(
        "benchmarks.selection:recovered", simulation={"gene_likelihood": "nb", "n_batches": 1}, seed=0, threads=threads
    )
    session.call("benchmarks.calibration:coverage", setting=tiny, threads=threads)
    session.call("benchmarks.joint_truth:entries", seed=0, n_obs=200, threads=threads)
    wanted = [f"{name}.{end}" for name in _FILES for end in ("csv", "md")] + ["elbo.png", "scaling.png"]
    missing = [name for name in wanted if not (session.out / name).exists()]
    if missing:
        msg = f"The benchmarks did not write {', '.join(missing)}."
        raise FileNotFoundError(msg)


def _with_two_groups(path: Path) -> None:
    """Scvi-tools compares each group of cells for seconds."""
    adata = ad.read_h5ad(path)
    adata.obs["label"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    adata.write_h5ad(path)
