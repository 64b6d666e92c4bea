from __future__ import annotations

import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pytest
import torch

import sc_ldvae

if TYPE_CHECKING:
    from types import FrameType

    from anndata import AnnData


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return sc_ldvae.datasets.simulate(150, 40, 3, n_batches=2, rng=0)


def fit(counts: AnnData, **options: Any) -> AnnData:
    return sc_ldvae.tl.ldvae(counts, 3, max_epochs=3, copy=True, progress=False, **options)


def assert_same_fit(one: AnnData, other: AnnData) -> None:
    np.testing.assert_array_equal(one.obsm["X_ldvae"], other.obsm["X_ldvae"])
    np.testing.assert_array_equal(one.varm["ldvae_loadings"], other.varm["ldvae_loadings"])
    np.testing.assert_array_equal(one.uns["ldvae"]["history"]["elbo"], other.uns["ldvae"]["history"]["elbo"])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"gene_likelihood": "zinb", "dispersion": "gene-cell", "batch_key": "batch"}, id="zinb"),
        pytest.param({"rng": 7}, id="other-seed"),
    ],
)
def test_same_seed_same_bits_whatever_the_global_generators_do(counts: AnnData, options: dict[str, Any]) -> None:
    first = fit(counts, **options)
    np.random.seed(1)  # noqa: NPY002  the point of the test
    torch.manual_seed(1)
    np.random.rand()  # noqa: NPY002
    torch.rand(3)
    assert_same_fit(first, fit(counts, **options))


def test_global_generators_stay_where_they_are(counts: AnnData) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    fit(counts)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before[1])  # noqa: NPY002
    assert np.random.get_state()[2] == numpy_before[2]  # noqa: NPY002


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({}, {"rng": 0}, id="default-is-0"),
        pytest.param({"rng": 3}, {"random_state": 3}, id="alias"),
        pytest.param({"rng": np.random.default_rng(3)}, {"rng": 3}, id="generator"),
        pytest.param({"train_size": 0.9}, {}, id="train-size"),
    ],
)
def test_the_same_source_of_randomness_by_other_names(
    counts: AnnData, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert_same_fit(fit(counts, **one), fit(counts, **other))


@pytest.mark.parametrize("seed", [pytest.param(1, id="1"), pytest.param(None, id="fresh")])
def test_another_seed_is_another_fit(counts: AnnData, seed: int | None) -> None:
    one, other = fit(counts, rng=0), fit(counts, rng=seed)
    assert np.abs(one.obsm["X_ldvae"] - other.obsm["X_ldvae"]).max() > 1e-3


def test_both_names_at_once_are_refused(counts: AnnData) -> None:
    with pytest.raises(TypeError, match="rng and random_state"):
        fit(counts, rng=0, random_state=0)


def settings() -> tuple[object, ...]:
    return torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), numba.get_num_threads()


def test_settings_of_torch_and_numba_stay_as_they_are(counts: AnnData) -> None:
    before = settings()
    fit(counts)
    assert settings() == before


@pytest.mark.parametrize("options", [{}, {"gene_likelihood": "zinb", "dispersion": "gene-cell"}])
def test_threads_do_not_change_a_bit(pbmc: AnnData, options: dict[str, Any]) -> None:
    """These minibatches are large enough to be cut into parts."""
    before, fits = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            fits.append(fit(pbmc, **options))
    finally:
        torch.set_num_threads(before)
    assert_same_fit(*fits)


def test_params_are_the_arguments_alone_also_under_a_tracer(counts: AnnData) -> None:
    """Debuggers and coverage tools have Python refresh the local variables of a running function."""

    def tracer(frame: FrameType, *_: object) -> object:
        return tracer if frame.f_code.co_name == "ldvae" and frame.f_locals else None

    plain = fit(counts).uns["ldvae"]["params"]
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        traced = fit(counts).uns["ldvae"]["params"]
    finally:
        sys.settrace(before)
    assert traced.keys() == plain.keys() <= inspect.signature(sc_ldvae.tl.ldvae).parameters.keys()


def test_the_number_of_threads_that_was_asked_for_is_kept_in_a_fresh_process() -> None:
    """There numba's pool starts with the fit, and would set the number of OpenMP's threads, which is torch's, too."""
    code = """
import torch
torch.set_num_threads(1)
torch.ones(3).sum()
import numba, sc_ldvae
seen, setter = [], numba.set_num_threads
numba.set_num_threads = lambda n: (seen.append(n), setter(n))
adata = sc_ldvae.datasets.simulate(40, 20, 2)
sc_ldvae.tl.ldvae(adata, 2, max_epochs=1, progress=False)
assert torch.get_num_threads() == 1, torch.get_num_threads()
assert seen[0] == 1, seen
"""
    subprocess.run([sys.executable, "-c", code], check=True)
