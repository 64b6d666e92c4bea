"""What the AnnData stores is the model: checked in NumPy alone, after a round trip through a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
import torch

import sc_ldvae
from sc_ldvae import fit, record
from sc_ldvae.engine import scorer_of

if TYPE_CHECKING:
    from pathlib import Path

    from sc_ldvae.counts import Cells
    from sc_ldvae.nn import LDVAE

LIKELIHOODS = ("nb", "zinb", "poisson")
DISPERSIONS = ("gene", "gene-batch", "gene-label", "gene-cell")
MODES = [
    *(
        pytest.param({"gene_likelihood": likelihood, "dispersion": dispersion}, id=f"{likelihood}-{dispersion}")
        for likelihood in LIKELIHOODS
        for dispersion in DISPERSIONS
    ),
    pytest.param({"latent_distribution": "ln"}, id="ln"),
    pytest.param(
        {"latent_distribution": "ln", "dispersion": "gene-cell", "gene_likelihood": "zinb"}, id="ln-zinb-cell"
    ),
    pytest.param({"use_observed_lib_size": True}, id="observed-library"),
    pytest.param({"size_factor_key": "size_factor"}, id="size-factor"),
    pytest.param({"use_batch_norm": False}, id="no-norm"),
    pytest.param({"use_batch_norm": False, "bias": True}, id="no-norm-bias"),
    pytest.param({"use_batch_norm": False, "bias": True, "gene_likelihood": "zinb"}, id="no-norm-bias-zinb"),
    pytest.param({"n_layers_encoder": 3, "log_variational": False}, id="deep-encoder-of-counts"),
    pytest.param({"mask_var": "chosen"}, id="mask"),
    pytest.param({"key_added": "foo"}, id="key-added"),
]


@pytest.fixture
def adata() -> ad.AnnData:
    adata = sc_ldvae.datasets.simulate(150, 40, 3, n_batches=3, n_continuous=2, rng=0)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = rng.choice(["female", "male"], 150)
    adata.obs["label"] = rng.choice(["a", "b", "c"], 150)
    adata.obs["year"] = 2020.0 + rng.integers(5, size=150)
    adata.obs["size_factor"] = rng.gamma(20, 0.05, 150)
    adata.var["chosen"] = rng.random(40) < 0.8
    return adata


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The module and the cells of the fit that the test makes."""
    seen: dict[str, Any] = {}
    original = fit.Course.run

    def spy(course: fit.Course, model: LDVAE, *args: object) -> str:
        seen.update(model=model, cells=course._cells)
        return original(course, model, *args)

    monkeypatch.setattr(fit.Course, "run", spy)
    return seen


def round_trip(adata: ad.AnnData, path: Path, suffix: str) -> ad.AnnData:
    file = path / f"fitted{suffix}"
    if suffix == ".zarr":
        adata.write_zarr(file)
        return ad.read_zarr(file)
    adata.write_h5ad(file)
    return ad.read_h5ad(file)


def design(adata: ad.AnnData, table: dict[str, np.ndarray]) -> np.ndarray:
    columns = []
    for key, level, mean, sd in zip(table["key"], table["level"], table["mean"], table["sd"], strict=True):
        values = adata.obs[key]
        columns.append((values.astype(str) == level) if level else (values - mean) / sd)
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], 1)


def affine(part: dict[str, np.ndarray], latent: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    parts = {name: np.asarray(values, dtype=np.float64) for name, values in part.items() if name in WANTED}
    return latent @ parts["loadings"].T + parts["intercept"] + covariates @ parts["covariate_effects"].T


WANTED = ("loadings", "intercept", "covariate_effects")


def module_parameters(model: LDVAE, cells: Cells) -> dict[str, np.ndarray]:
    """Mean, theta and zero inflation by the module in double precision, from its own single precision posterior."""
    everyone = np.arange(cells.n_obs)
    with scorer_of(model) as scorer:
        state = fit.posterior(model, scorer, cells, everyone)
    latent, library = (torch.from_numpy(values).double() for values in (state.latent, state.library))
    known = {name: torch.from_numpy(values) for name, values in cells.annotations.items()}
    model = model.double()
    covariates = model.covariates(known["batch_index"], known["cat_covs"], known["cont_covs"].double())
    group = model.theta_group(known["batch_index"], known["labels"])
    with torch.no_grad():
        log_mu, parts = model.decode(latent, covariates, library.log()[:, None], group)
    assert len(log_mu) == len(everyone)
    return {
        "mean": log_mu.exp().numpy(),
        "log_theta": parts["log_theta"].detach().numpy() if "log_theta" in parts else None,
        "zi_logits": parts["zero_inflation"].numpy() if "zero_inflation" in parts else None,
    }


# A .zarr takes seconds to write.
@pytest.mark.parametrize(
    ("options", "suffix"),
    [pytest.param(*mode.values, ".h5ad", id=f"{mode.id}-h5ad") for mode in MODES]
    + [pytest.param(*mode.values, ".zarr", id=f"{mode.id}-zarr") for mode in (MODES[1], MODES[13])],
)
def test_numpy_gives_the_modules_distribution_from_the_file(
    options: dict[str, Any], suffix: str, adata: ad.AnnData, trained: dict[str, Any], tmp_path: Path
) -> None:
    sc_ldvae.tl.ldvae(
        adata,
        3,
        batch_key="batch",
        labels_key="label",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["covariate1", "year"],
        max_epochs=2,
        progress=False,
        **options,
    )
    stored = round_trip(adata, tmp_path, suffix)
    key = options.get("key_added")
    record = stored.uns[key or "ldvae"]
    latent = stored.obsm[key or "X_ldvae"].astype(np.float64)
    library = stored.obs[f"{key or 'ldvae'}_library"].to_numpy(dtype=np.float64)
    covariates, decoder = design(stored, record["covariates"]), record["decoder"]
    expected = module_parameters(**trained)

    eta = affine(decoder, latent, covariates)
    exp_eta = np.exp(eta - eta.max(1, keepdims=True))
    mean = library[:, None] * exp_eta / exp_eta.sum(1, keepdims=True)
    np.testing.assert_allclose(mean, expected["mean"], rtol=1e-5)
    fitted = stored.var_names.isin(record["genes"])
    np.testing.assert_array_equal(stored.varm[key or "ldvae_loadings"][fitted], decoder["loadings"])
    assert not stored.varm[key or "ldvae_loadings"][~fitted].any()

    if "zero_inflation" in decoder:
        logits = affine(decoder["zero_inflation"], latent, covariates)
        np.testing.assert_allclose(logits, expected["zi_logits"], rtol=1e-5, atol=1e-5)
    assert ("zero_inflation" in decoder) == (expected["zi_logits"] is not None)
    if options.get("dispersion") == "gene-cell" and "log_theta" in decoder:
        np.testing.assert_allclose(
            affine(decoder["log_theta"], latent, covariates), expected["log_theta"], rtol=1e-5, atol=1e-5
        )
    elif "log_theta" in decoder:
        level = {"gene-batch": ("batch", "batches"), "gene-label": ("label", "labels")}.get(options.get("dispersion"))
        rows = (
            0 if level is None else [list(record[level[1]]).index(value) for value in stored.obs[level[0]].astype(str)]
        )
        np.testing.assert_allclose(
            np.broadcast_to(decoder["log_theta"][rows], eta.shape),
            np.broadcast_to(expected["log_theta"], eta.shape),
            rtol=1e-5,
            atol=1e-6,
        )
    assert ("log_theta" in decoder) == (expected["log_theta"] is not None)


def relu_network(encoder: dict[str, np.ndarray], h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for i in range(sum(name.startswith("weight_") for name in encoder)):
        h = np.maximum(h @ encoder[f"weight_{i}"].T.astype(np.float64) + encoder[f"bias_{i}"], 0)
    mean, log_variance = (
        h @ encoder[f"{head}_weight"].T.astype(np.float64) + encoder[f"{head}_bias"]
        for head in ("mean", "log_variance")
    )
    return mean, np.exp(log_variance) + 1e-4


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        pytest.param({}, ".h5ad", id="default"),
        pytest.param({"n_layers_encoder": 3}, ".zarr", id="deep"),
        pytest.param({"log_variational": False}, ".h5ad", id="of-counts"),
        pytest.param({"latent_distribution": "ln"}, ".h5ad", id="ln"),
    ],
)
def test_stored_encoders_give_the_latent_and_the_library(
    options: dict[str, Any], suffix: str, adata: ad.AnnData, tmp_path: Path
) -> None:
    sc_ldvae.tl.ldvae(adata, 3, max_epochs=3, progress=False, **options)
    stored = round_trip(adata, tmp_path, suffix)
    encoder = stored.uns["ldvae"]["encoder"]
    counts = stored.X.toarray().astype(np.float64)
    seen = counts if options.get("log_variational") is False else np.log1p(counts)
    mean, variance = relu_network(encoder["z"], seen)
    if "latent_distribution" in options:
        mean = np.exp(mean) / np.exp(mean).sum(1, keepdims=True)
    np.testing.assert_allclose(stored.obsm["X_ldvae"], mean, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(stored.obsm["X_ldvae_variance"], variance, rtol=1e-3)
    log_library, _ = relu_network(encoder["library"], seen)
    np.testing.assert_allclose(np.log(stored.obs["ldvae_library"]), log_library[:, 0], rtol=1e-4)


def test_factors_in_another_order_take_their_posteriors_and_loadings_along(adata: ad.AnnData) -> None:
    sc_ldvae.tl.ldvae(adata, 3, max_epochs=3, progress=False)
    one = record.read(adata).folded
    # A short fit leaves the variances of all factors alike.
    one.encoders["z"]["log_variance_bias"][:] = [-1, 0, 1]
    order, signs, seen = np.array([2, 0, 1]), np.array([1.0, -1.0, 1.0]), np.log1p(adata.X.toarray().astype(np.float64))
    other = one.reordered(order, signs)
    (mean, variance), (mean_after, variance_after) = (relu_network(f.encoders["z"], seen) for f in (one, other))
    np.testing.assert_allclose(mean_after, mean[:, order] * signs, rtol=1e-12)
    np.testing.assert_allclose(variance_after, variance[:, order], rtol=1e-12)
    before, after = (f.decoder.log_proportion for f in (one, other))
    np.testing.assert_allclose(mean_after @ after.loadings.T, mean @ before.loadings.T, rtol=1e-6, atol=1e-9)


def test_canonical_form(adata: ad.AnnData) -> None:
    sc_ldvae.tl.ldvae(
        adata, 3, batch_key="batch", continuous_covariate_keys=["covariate1"], max_epochs=20, progress=False
    )
    stored = adata.uns["ldvae"]
    loadings, intercept = adata.varm["ldvae_loadings"].astype(np.float64), stored["decoder"]["intercept"]
    effects = stored["decoder"]["covariate_effects"].astype(np.float64)
    np.testing.assert_allclose(loadings.mean(0), 0, atol=1e-6)
    assert ((loadings**3).sum(0) > 0).all()
    assert (np.diff(stored["explained_deviance"]) <= 0).all()
    np.testing.assert_allclose(np.exp(intercept.astype(np.float64)).sum(), 1, rtol=1e-5)
    np.testing.assert_allclose(effects.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(effects[:, :3].sum(1), 0, atol=1e-6)
    assert 0 < stored["total_explained_deviance"] < 1


def test_logistic_normal_latent_is_a_composition_and_keeps_its_sign(adata: ad.AnnData) -> None:
    sc_ldvae.tl.ldvae(adata, 3, latent_distribution="ln", max_epochs=5, progress=False)
    latent = adata.obsm["X_ldvae"]
    assert (latent > 0).all()
    np.testing.assert_allclose(latent.sum(1), 1, rtol=1e-5)
