"""Every bit of fits in many modes, for comparing two states of the code.

    python tests/promises/bits.py save FOLDER       with the one state, then with the other:
    python tests/promises/bits.py compare FOLDER    fails if anything that both have differs in a bit

Only the public surface is used, so that old and new code can run it. What a fit is asked afterwards are the tasks of
`second_process.py`.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad

SECOND = runpy.run_path(str(next(Path(__file__).parents[1].rglob("second_process.py"))))
# What fits gained: entries that only one of the states has, or of another value.
NEW = ("/blocks", "/schema_version", "/checksum", "/keys/fit", "/ldvae_fit", "/foo_fit")
COVARIATES: dict[str, Any] = {
    "batch_key": "batch",
    "labels_key": "label",
    "categorical_covariate_keys": ["sex"],
    "continuous_covariate_keys": ["covariate1", "year"],
}
MODES: dict[str, dict[str, Any]] = {
    **{
        f"{likelihood}-{dispersion}": {"gene_likelihood": likelihood, "dispersion": dispersion, **COVARIATES}
        for likelihood, dispersion in product(
            ("nb", "zinb", "poisson"), ("gene", "gene-batch", "gene-label", "gene-cell")
        )
    },
    "bernoulli": {"gene_likelihood": "bernoulli", **COVARIATES},
    "default": {},
    "default-all-cells": {"train_size": 1.0},
    "batch": {"batch_key": "batch"},
    "ln": {"latent_distribution": "ln", **COVARIATES},
    "ln-zinb-gene-cell": {"latent_distribution": "ln", "gene_likelihood": "zinb", "dispersion": "gene-cell"},
    "observed-library": {"use_observed_lib_size": True},
    "size-factor": {"size_factor_key": "size_factor", **COVARIATES},
    "no-norm": {"use_batch_norm": False},
    "no-norm-bias": {"use_batch_norm": False, "bias": True, "gene_likelihood": "zinb"},
    "deep-encoder-of-counts": {"n_layers_encoder": 3, "log_variational": False},
    "mask": {"mask_var": "chosen", "n_hidden": 32, "dropout_rate": 0.3},
    "key-added": {"key_added": "foo", "layer": "counts", "batch_size": 50, "lr": 0.02, "rng": 7},
}


def annotated() -> ad.AnnData:
    adata = sc_ldvae.datasets.pbmc68k_counts()
    rng = np.random.default_rng(0)
    for name, levels in {"batch": "uvw", "sex": ["female", "male"], "label": "abc"}.items():
        adata.obs[name] = rng.choice(list(levels), adata.n_obs)
    adata.obs["covariate1"] = rng.normal(size=adata.n_obs)
    adata.obs["year"] = 2020.0 + rng.integers(5, size=adata.n_obs)
    adata.obs["size_factor"] = rng.gamma(20, 0.05, adata.n_obs)
    adata.var["chosen"] = rng.random(adata.n_vars) < 0.6
    adata.layers["counts"] = adata.X.copy()
    return adata


def leaves(value: Any, where: str) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(value, Mapping):
        for key in value:
            if not f"{where}/{key}".endswith(NEW):
                yield from leaves(value[key], f"{where}/{key}")
    else:
        array = np.asarray(value)
        yield where, array.astype(str) if array.dtype.hasobject else array


def bits_of(mode: str) -> dict[str, np.ndarray]:
    """Everything that a fit of this mode leaves, and its answers; the posterior of all cells in all tasks."""
    adata = annotated()
    sc_ldvae.tl.ldvae(adata, 5, progress=False, **MODES[mode])
    key = MODES[mode].get("key_added", "ldvae")
    parts = dict(leaves({**adata.obsm, **adata.varm, **adata.obs, "uns": adata.uns}, mode))
    asked = adata[::7].copy()
    if {"batch_key", "labels_key"} <= MODES[mode].keys():
        answers = SECOND["results"](asked, adata[::9, ::-1].copy(), key)
    else:
        answers = {"elbo": np.array(sc_ldvae.tl.elbo(asked, key=key, progress=False))}
        sc_ldvae.tl.stability(asked, 2, key=key, progress=False)
        answers |= dict(leaves(asked.uns[f"{key}_stability"], "stability"))
    return parts | {f"{mode}/answers/{name}": array for name, array in answers.items()}


def main(command: str, folder: str, *modes: str) -> None:
    torch.set_num_threads(1)
    differing = 0
    for mode in modes or MODES:
        now, path = bits_of(mode), Path(folder, f"{mode}.npz")
        if command == "save":
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{str(i): array for i, array in enumerate(now.values())}, names=np.array(list(now)))
            continue
        stored = np.load(path)
        before = {name: stored[str(i)] for i, name in enumerate(stored["names"].tolist())}
        wrong = [name for name in before if name not in now or not same(before[name], now[name])]
        wrong += [f"{name} is new" for name in now if name not in before]
        differing += len(wrong)
        print(f"{mode}: {len(before)} arrays, {len(wrong)} differ", *wrong[:10])  # noqa: T201  its output
    sys.exit(differing > 0)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.kind == "U":
        return one.tolist() == other.tolist()
    return (one.dtype, one.shape) == (other.dtype, other.shape) and one.tobytes() == other.tobytes()


if __name__ == "__main__":
    main(*sys.argv[1:])
