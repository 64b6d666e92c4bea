"""Refits: which cells they see, and that they are asked for what the fit was."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest

from sc_ldvae import fit, inputs, record, tl
from sc_ldvae._options import ModelOptions, Schedule
from sc_ldvae._typing import UNSET
from sc_ldvae.fit import Resampled, halves, resampled
from sc_ldvae.fit._scan import of_sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    FitQuickly = Callable[..., ad.AnnData]


def strata_of(*sizes: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("sizes", [(8,), (9,), (40, 10), (41, 11, 2), (15, 3, 1)])
def test_halves_are_disjoint_complete_and_balanced(sizes: tuple[int, ...]) -> None:
    strata = strata_of(*sizes)
    first, second = halves(strata, np.random.default_rng(1))
    for one, other in ((first, second), (second, first)):
        np.testing.assert_array_equal(one.training, other.others)
        assert (np.diff(one.training) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(first)), np.arange(len(strata)))
    assert abs(len(first.training) - len(second.training)) <= 1
    for stratum, size in enumerate(sizes):
        assert abs((strata[first.training] == stratum).sum() - size / 2) <= 0.5


def test_each_cell_is_in_either_half_as_often() -> None:
    rng, times = np.random.default_rng(0), np.zeros(20)
    for _ in range(1000):
        times[halves(strata_of(14, 6), rng)[0].training] += 1
    # Five standard deviations of a fair coin.
    assert np.abs(times - 500).max() < 5 * np.sqrt(250)


def test_halves_of_refits_come_in_pairs() -> None:
    strata = strata_of(12, 8)
    samples = list(resampled(6, "halves", strata, np.zeros(20, dtype=bool), np.random.default_rng(0)))
    assert len(samples) == 6
    for first, second in zip(samples[::2], samples[1::2], strict=True):
        np.testing.assert_array_equal(first.training, second.others)
        np.testing.assert_array_equal(first.others, second.training)
    assert len({sample.training.tobytes() for sample in samples}) == 6


def test_bootstrap_draws_as_many_cells_and_holds_out_the_others() -> None:
    held_out = np.arange(300) < 30
    samples = list(resampled(3, "bootstrap", np.zeros(300), held_out, np.random.default_rng(0)))
    assert len(samples) == 3
    for training, others in samples:
        assert len(training) == 300
        assert set(training) | set(others) == set(range(300))
        assert not set(training) & set(others)
        # A share of 1 / e is never drawn.
        assert 85 < len(others) < 135


def test_seeds_alone_keep_the_cells_of_the_fit() -> None:
    held_out = np.arange(20) % 4 == 0
    for training, others in resampled(2, None, np.zeros(20), held_out, np.random.default_rng(0)):
        np.testing.assert_array_equal(training, np.flatnonzero(~held_out))
        np.testing.assert_array_equal(others, np.flatnonzero(held_out))


OTHERWISE = {
    "n_hidden": 16,
    "n_layers_encoder": 2,
    "dropout_rate": 0.3,
    "log_variational": False,
    "use_batch_norm": False,
    "bias": True,
    "gene_likelihood": "zinb",
    "dispersion": "gene-batch",
    "batch_size": 32,
    "lr": 0.01,
    "early_stopping": False,
    "max_epochs": 3,
}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param(OTHERWISE, id="otherwise"),
        pytest.param({"use_observed_lib_size": True, "labels_key": "label", "dispersion": "gene-label"}, id="labels"),
        pytest.param({"size_factor_key": "true_library", "latent_distribution": "ln"}, id="size-factor-ln"),
        pytest.param({"gene_likelihood": "poisson", "layer": "counts", "mask_var": "chosen"}, id="layer-mask"),
    ],
)
def test_stored_fit_asks_for_itself(
    simulated: ad.AnnData, fit_quickly: FitQuickly, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Asked for again with its seed and held-out cells, it is the same to the bit, from memory and from a file."""
    adata = simulated.copy()
    rng = np.random.default_rng(0)
    adata.obs["label"] = rng.choice(["a", "b"], adata.n_obs)
    adata.obs["train"] = rng.random(adata.n_obs) < 0.8
    adata.var["chosen"] = rng.random(adata.n_vars) < 0.7
    adata.layers["counts"] = adata.X.copy()
    covariates = {"batch_key": "batch", "continuous_covariate_keys": ["covariate1"]}
    fit_quickly(adata, rng=5, train_size="train", **covariates, **options)
    if "layer" in options:
        adata.X = None
    adata.write_h5ad(tmp_path / "fit.h5ad")
    for data in (adata, ad.read_h5ad(tmp_path / "fit.h5ad")):
        request = inputs.request_of_record(data, record.read(data), UNSET, "cpu")
        again = fit.fit(request, ~data.obs["train"].to_numpy(), np.random.default_rng(5))
        np.testing.assert_array_equal(again.alone.latent, adata.obsm["X_ldvae"])
        stored = adata.uns["ldvae"]["decoder"]["loadings"]
        np.testing.assert_array_equal(again.alone.folded.decoder.log_proportion.loadings.astype(np.float32), stored)


def test_records_without_arguments_get_the_defaults_of_the_fit(fitted: ad.AnnData, reseal: Callable[..., None]) -> None:
    """As those of fits that were made elsewhere."""
    defaults = {name: one.default for name, one in inspect.signature(tl.ldvae).parameters.items()}
    for options in (ModelOptions, Schedule):
        assert vars(options()) == {field.name: defaults[field.name] for field in fields(options)}
    adata = fitted.copy()
    for name in ("n_hidden", "lr", "max_epochs", "early_stopping"):
        del adata.uns["ldvae"]["params"][name]
    reseal(adata)
    request = inputs.request_of_record(adata, record.read(adata), UNSET, "cpu")
    assert (request.options.n_hidden, request.schedule.lr, request.schedule.max_epochs) == (128, 0.06, None)
    assert request.schedule.early_stopping is True


def test_repeated_cells_are_trained_on_as_often(simulated: ad.AnnData, fit_quickly: FitQuickly) -> None:
    """Cells with their own counts, batch and covariate, in the order that was asked for."""
    adata = fit_quickly(simulated, batch_key="batch", continuous_covariate_keys=["covariate1"], copy=True)
    request = inputs.request_of_record(adata, record.read(adata), UNSET, "cpu")
    request = replace(request, options=replace(request.options, n_latent=2))
    training, others = np.array([5, 5, 5, *range(100)]), np.arange(150, 170)
    asked, held_out = of_sample(request, Resampled(training, others))
    done = fit.trained(asked, held_out, np.random.default_rng(0))
    cells, known = np.concatenate([training, others]), asked.cells.annotations
    np.testing.assert_array_equal(held_out, np.arange(len(cells)) >= len(training))
    np.testing.assert_array_equal(asked.cells.source.totals, simulated.X.toarray()[cells].sum(axis=1))
    np.testing.assert_array_equal(known["batch_index"], simulated.obs["batch"].cat.codes.to_numpy()[cells])
    number = simulated.obs["covariate1"].to_numpy()
    expected = ((number - number.mean()) / number.std())[cells]
    np.testing.assert_allclose(known["cont_covs"][:, 0], expected, rtol=1e-5, atol=1e-6)
    assert len(done.history.epoch) == 2
    assert done.model.n_latent == 2
