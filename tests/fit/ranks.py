"""What each process of a group does in `test_ranks.py`: ``torchrun ranks.py TASK FOLDER``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import sc_ldvae
from sc_ldvae.counts import _order
from sc_ldvae.engine._fused import FusedEngine

if TYPE_CHECKING:
    from collections.abc import Callable

MODES: dict[str, dict[str, Any]] = {
    "every-factor": {"loadings_prior": None, "max_epochs": 4},
    # Enough steps for factors to be chosen.
    "adaptive": {"max_epochs": 80, "batch_key": "batch"},
    "uneven": {"loadings_prior": None, "max_epochs": 2, "train_size": 0.83, "batch_size": 17},
}


def counts() -> Any:
    return sc_ldvae.datasets.simulate(320, 30, 2, n_batches=2, mean_library=200, rng=0)


def fit(mode: str, **options: Any) -> Any:
    adata = counts()
    sc_ldvae.tl.ldvae(adata, 4, **{"batch_size": 16, "n_hidden": 8, "progress": False} | MODES[mode] | options)
    return adata


def results(adata: Any) -> dict[str, np.ndarray]:
    stored = adata.uns["ldvae"]
    return {
        "latent": adata.obsm["X_ldvae"],
        "loadings": adata.varm["ldvae_loadings"],
        "held_out": adata.obs["ldvae_held_out"].to_numpy(),
        "elbo_held_out": np.array(stored["elbo_held_out"]),
        "elbo": stored["history"]["elbo"],
        "checksum": np.array(stored["checksum"]),
    }


def save(folder: Path, name: str, adata: Any) -> None:
    np.savez(folder / f"{name}.{os.environ['RANK']}.npz", **results(adata))


def fits(folder: Path) -> None:
    """Every mode; with a checkpoint, after which it goes on; with seeds that each process draws."""
    for mode in MODES:
        save(folder, mode, fit(mode))
    interrupt = FusedEngine.step
    n = 0

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal n
        n += 1
        if n > 10:
            raise KeyboardInterrupt
        return interrupt(*args, **kwargs)

    FusedEngine.step = step
    try:
        fit("every-factor", checkpoint=folder / "state.npz")
    except (KeyboardInterrupt, ConnectionError):
        # The other process may have gone while this one was still hearing it.
        FusedEngine.step = interrupt
    save(folder, "resumed", fit("every-factor", checkpoint=folder / "state.npz", resume=True))
    save(folder, "any-seed", fit("every-factor", rng=None))
    assert not torch.distributed.is_initialized()


def told(folder: Path, fit: Callable[[], Any]) -> None:
    """Write down how the fit is refused; whoever ends at once is not heard any more, for torchrun ends the others."""
    try:
        fit()
    except (OSError, ValueError) as error:
        (folder / f"said.{os.environ['RANK']}").write_text(f"{type(error).__name__}: {error}")
        until = time.monotonic() + 60
        while not all((folder / f"said.{rank}").exists() for rank in range(2)) and time.monotonic() < until:
            time.sleep(0.05)


def in_the_tenth_step(happens: Callable[[], None]) -> None:
    """Of the second process."""
    original, n = FusedEngine.step, 0

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal n
        n += 1
        if n == 10 and os.environ["RANK"] == "1":
            happens()
        return original(*args, **kwargs)

    FusedEngine.step = step


def failing(folder: Path) -> None:
    """The second process is given other cells; then its file fails it; the other has to hear of both."""
    adata = counts()
    adata = adata[:300].copy() if os.environ["RANK"] == "1" else adata
    told(folder / "differing", lambda: sc_ldvae.tl.ldvae(adata, 3, max_epochs=2, progress=False))

    def fail() -> None:
        msg = "X is not on disk any more."
        raise OSError(msg)

    in_the_tenth_step(fail)
    told(folder / "error", lambda: fit("every-factor", checkpoint=folder / "error" / "state.npz"))
    sys.exit(1)


def killed(folder: Path) -> None:
    """The second process is killed, of which the other has to hear."""

    def die() -> None:
        (folder / "said.1").write_text("")
        os.kill(os.getpid(), 9)

    in_the_tenth_step(die)
    told(folder, lambda: fit("every-factor", checkpoint=folder / "state.npz"))
    sys.exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _order._LARGEST_BLOCK = 8
    globals()[sys.argv[1]](Path(sys.argv[2]))
