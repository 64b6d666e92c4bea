"""A fit that was written to a file answers in another process as it did before."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Callable

    Answers: TypeAlias = dict[str, np.ndarray]

SCRIPT = Path(__file__).with_name("second_process.py")
SECOND = runpy.run_path(str(SCRIPT))
# Each likelihood with parts and each dispersion twice, for the file holds their parts beside each other; beside one of
# them each other option that leaves something there.
MODES: dict[str, dict[str, Any]] = {
    f"{likelihood}-{dispersion}{name and f'-{name}'}": {"gene_likelihood": likelihood, "dispersion": dispersion}
    | options
    for likelihood, dispersion, name, options in (
        ("nb", "gene", "", {}),
        ("zinb", "gene", "observed-library", {"use_observed_lib_size": True}),
        ("poisson", "gene-batch", "size-factor", {"size_factor_key": "size_factor"}),
        ("nb", "gene-batch", "mask", {"mask_var": "chosen"}),
        ("zinb", "gene-label", "no-norm", {"use_batch_norm": False}),
        ("bernoulli", "gene-label", "deep-encoder-of-counts", {"n_layers_encoder": 3, "log_variational": False}),
        ("nb", "gene-cell", "key-added", {"key_added": "foo"}),
        ("nb", "gene", "ln", {"latent_distribution": "ln"}),
        ("zinb", "gene-cell", "ln", {"latent_distribution": "ln"}),
    )
}
# A .zarr takes seconds to write; it is also compared with the .h5ad array by array.
ASKED_OF_ZARR = ("zinb-gene-cell-ln", "nb-gene-batch-mask")
FILES = [(mode, ".h5ad") for mode in MODES] + [(mode, ".zarr") for mode in ASKED_OF_ZARR]


def annotated(n_obs: int, n_vars: int) -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(n_obs, n_vars, 3, n_batches=3, n_continuous=1, rng=0)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = rng.choice(["female", "male"], n_obs)
    adata.obs["label"] = rng.choice(["a", "b", "c"], n_obs)
    adata.obs["year"] = 2020.0 + rng.integers(5, size=n_obs)
    adata.obs["size_factor"] = rng.gamma(20, 0.05, n_obs)
    adata.var["chosen"] = rng.random(n_vars) < 0.8
    return adata


def query_of(adata: ad.AnnData) -> ad.AnnData:
    """Some of the cells, their genes in another order and among others."""
    extra = ad.AnnData(sparse.csr_matrix(np.ones((adata.n_obs, 5), dtype=np.float32)), obs=adata.obs[[]])
    extra.var_names = [f"extra{i}" for i in range(5)]
    query = ad.concat([adata, extra], axis=1, merge="first")
    return query[::4, np.random.default_rng(1).permutation(query.n_vars)].copy()


def assert_same_arrays(one: Any, other: Any) -> None:
    """Nested mappings of arrays, as files give them back."""
    if isinstance(one, ad.AnnData):
        pd.testing.assert_frame_equal(one.obs, other.obs)
        parts = ("uns", "obsm", "varm")
        one, other = ({part: getattr(adata, part) for part in parts} for adata in (one, other))
    if isinstance(one, Mapping):
        assert sorted(one) == sorted(other)
        for name in one:
            assert_same_arrays(one[name], other[name])
    else:
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, fit_quickly: Callable[..., ad.AnnData]
) -> dict[str, dict[str, Answers]]:
    """By mode: the answers of this process (``'before'``), and for each suffix those of the second one."""
    folder, adata = tmp_path_factory.mktemp("second_process"), annotated(60, 30)
    query = query_of(adata)
    query.write_h5ad(folder / "query.h5ad")
    query.write_zarr(folder / "query.zarr")
    by_mode = {}
    for mode, options in MODES.items():
        fitted = fit_quickly(
            adata,
            copy=True,
            batch_key="batch",
            labels_key="label",
            categorical_covariate_keys=["sex"],
            continuous_covariate_keys=["covariate1", "year"],
            **options,
        )
        (folder / mode).mkdir()
        path = folder / mode / "fitted.h5ad"
        fitted.write_h5ad(path)
        if mode in ASKED_OF_ZARR:
            fitted.write_zarr(path.with_suffix(".zarr"))
            assert_same_arrays(SECOND["read"](path), SECOND["read"](path.with_suffix(".zarr")))
        by_mode[mode] = {"before": SECOND["results"](fitted, query, options.get("key_added", "ldvae"))}
    subprocess.run([sys.executable, SCRIPT, folder], check=True)
    for mode, suffix in FILES:
        by_mode[mode][suffix] = dict(np.load(folder / mode / f"fitted{suffix}.npz"))
    return by_mode


@pytest.mark.parametrize("function", SECOND["FUNCTIONS"])
@pytest.mark.parametrize(("mode", "suffix"), FILES)
def test_same_answer(mode: str, suffix: str, function: str, answers: dict[str, dict[str, Answers]]) -> None:
    before, after = (
        {part: array for part, array in answers[mode][where].items() if part.startswith(f"{function}/")}
        for where in ("before", suffix)
    )
    assert before
    assert list(after) == list(before)
    for part, expected in before.items():
        assert after[part].dtype.kind == expected.dtype.kind, part
        if expected.dtype.kind == "U":
            assert after[part].tolist() == expected.tolist(), part
        else:
            assert after[part].shape == expected.shape, part
            np.testing.assert_allclose(after[part], expected, rtol=1e-6, err_msg=part)


@pytest.mark.parametrize("mode", MODES)
def test_answers_are_of_the_mode(mode: str, answers: dict[str, dict[str, Answers]]) -> None:
    """Else it would be nothing that is compared."""
    before = answers[mode]["before"]
    n_genes = int(annotated(60, 30).var["chosen"].sum()) if "mask" in mode else 30
    assert len(before["loadings/index"]) == n_genes
    assert np.isfinite(before["elbo/values"]).all()
    assert 0 < before["expression-threshold/data"].size < 60 * n_genes
