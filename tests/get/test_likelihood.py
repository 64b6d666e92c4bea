from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pytest
from scipy.special import expit, softmax

import sc_ldvae
from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

DISPERSIONS = ("gene", "gene-batch", "gene-label", "gene-cell")
MODES = [
    pytest.param({"gene_likelihood": likelihood, "dispersion": dispersion, "latent_distribution": latent}, id=name)
    for likelihood in ("nb", "zinb", "poisson")
    for dispersion in DISPERSIONS
    for latent in ("normal", "ln")
    for name in [f"{likelihood}-{dispersion}-{latent}"]
]


@pytest.fixture(scope="module")
def annotated() -> AnnData:
    adata = sc_ldvae.datasets.simulate(150, 40, 3, n_batches=3, n_continuous=1, rng=0)
    adata.obs["label"] = np.random.default_rng(0).choice(["a", "b"], 150)
    return adata


@pytest.fixture(scope="module")
def fit_all(annotated: AnnData, fit_quickly: Callable[..., AnnData]) -> Callable[..., AnnData]:
    """A fit with batch, labels and a covariate."""

    def fit(**options: Any) -> AnnData:
        arguments = {"batch_key": "batch", "labels_key": "label", "continuous_covariate_keys": ["covariate1"]}
        return fit_quickly(annotated, copy=True, **arguments | options)

    return fit


def affine(part: dict[str, np.ndarray], latent: np.ndarray, columns: np.ndarray) -> np.ndarray:
    parts = {name: np.asarray(values, np.float64) for name, values in part.items() if not isinstance(values, dict)}
    return latent @ parts["loadings"].T + parts["intercept"] + columns @ parts["covariate_effects"].T


def expected(adata: AnnData) -> dict[str, np.ndarray]:
    """Parameters of the counts from the stored arrays, in double precision."""
    content, decoder = adata.uns["ldvae"], adata.uns["ldvae"]["decoder"]
    latent = adata.obsm["X_ldvae"].astype(np.float64)
    mean, sd = content["covariates"]["mean"][-1], content["covariates"]["sd"][-1]
    one_hot = adata.obs["batch"].astype(str).to_numpy()[:, None] == np.asarray(content["batches"], dtype=str)
    columns = np.column_stack([one_hot, (adata.obs["covariate1"] - mean) / sd])
    library = adata.obs["ldvae_library"].to_numpy(dtype=np.float64)
    parameters = {"mean": library[:, None] * softmax(affine(decoder, latent, columns), axis=1)}
    if "loadings" in decoder.get("log_theta", ()):
        parameters["theta"] = np.exp(affine(decoder["log_theta"], latent, columns))
    elif "log_theta" in decoder:
        levels = {"gene-batch": ("batch", "batches"), "gene-label": ("label", "labels")}
        column, stored = levels.get(str(content["params"]["dispersion"]), (None, None))
        rows = 0 if column is None else [list(content[stored]).index(level) for level in adata.obs[column].astype(str)]
        log_theta = decoder["log_theta"].astype(np.float64)[rows]
        parameters["theta"] = np.broadcast_to(np.exp(log_theta), parameters["mean"].shape)
    if "zero_inflation" in decoder:
        parameters["zero_inflation"] = expit(affine(decoder["zero_inflation"], latent, columns))
    return parameters


@pytest.mark.parametrize("options", MODES)
def test_parameters_are_those_of_the_stored_arrays(
    options: dict[str, str], fit_all: Callable[..., AnnData], unchanged: Callable
) -> None:
    adata = fit_all(**options)
    del adata.X
    with unchanged(adata):
        frames = get.likelihood_parameters(adata)
    wanted = expected(adata)
    assert list(frames) == list(wanted)
    assert ("theta" in frames) == (options["gene_likelihood"] != "poisson")
    assert ("zero_inflation" in frames) == (options["gene_likelihood"] == "zinb")
    for name, frame in frames.items():
        assert frame.index.equals(adata.obs_names)
        assert frame.columns.tolist() == list(adata.uns["ldvae"]["genes"])
        assert (frame.dtypes == np.float32).all()
        np.testing.assert_allclose(frame, wanted[name], rtol=1e-5)


@pytest.mark.parametrize("dispersion", DISPERSIONS)
def test_genes_are_chosen(dispersion: str, fit_all: Callable[..., AnnData]) -> None:
    adata = fit_all(gene_likelihood="zinb", dispersion=dispersion)
    everything = get.likelihood_parameters(adata)
    for name, frame in get.likelihood_parameters(adata, genes=["gene7", "gene2"]).items():
        np.testing.assert_allclose(frame, everything[name][["gene7", "gene2"]], rtol=1e-6)
        assert frame.columns.tolist() == ["gene7", "gene2"]
    assert get.likelihood_parameters(adata, genes="gene3")["theta"].shape == (150, 1)


@pytest.mark.parametrize("n_at_once", [1, 40, 41, 2000])
def test_cells_are_decoded_in_chunks(
    n_at_once: int, fit_all: Callable[..., AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = fit_all(gene_likelihood="zinb")
    whole = get.likelihood_parameters(adata)
    monkeypatch.setattr("sc_ldvae.decode._counts._AT_ONCE", n_at_once)
    for name, frame in get.likelihood_parameters(adata).items():
        np.testing.assert_allclose(frame, whole[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("genes", "sentence"),
    [
        pytest.param(["gene0", "CD3D"], r"^genes holds 'CD3D', which is not among the 60 genes of the fit", id="other"),
        pytest.param(["gene0", "gene1", "gene0"], r"^genes holds 'gene0' more than once\.", id="twice"),
    ],
)
def test_genes_that_can_not_be_chosen(genes: list[str], sentence: str, fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=sentence):
        get.likelihood_parameters(fitted, genes=genes)


def test_an_unseen_batch_is_refused(fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.obs["batch"] = "other"
    with pytest.raises(ValueError, match=r"^obs\['batch'\] has the level 'other', which the fit has not seen"):
        get.likelihood_parameters(adata)


def test_what_does_not_fit_into_memory_is_refused(fitted: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Memory:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(MemoryError, match=r"^2 frames of 200 cells x 60 genes needs? 96,000 bytes .* \(genes\)"):
        get.likelihood_parameters(fitted)


each_getter = pytest.mark.parametrize("getter", [get.likelihood_parameters, get.latent_library_size])


@each_getter
def test_no_fit_is_refused(getter: Callable[..., object], fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^uns\['foo'\] holds no fit"):
        getter(fitted, key="foo")


@each_getter
def test_cells_without_latent_are_refused(getter: Callable[..., object], fitted: AnnData) -> None:
    adata = fitted.copy()
    adata.obsm["X_ldvae"][3] = np.nan
    with pytest.raises(ValueError, match=r"^1 of 200 cells have no latent"):
        getter(adata)


def test_key_and_modality(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(simulated, key_added="foo", copy=True)
    mdata = mudata.MuData({"rna": adata})
    np.testing.assert_array_equal(
        get.likelihood_parameters(mdata, key="foo", modality="rna")["mean"],
        get.likelihood_parameters(adata, key="foo")["mean"],
    )
    library = get.latent_library_size(mdata, key="foo", modality="rna")
    np.testing.assert_array_equal(library, adata.obs["foo_library"])
    assert library.name == "foo_library"


def test_library_is_the_stored_one(fitted: AnnData, unchanged: Callable) -> None:
    adata = fitted.copy()
    del adata.X
    with unchanged(adata):
        library = get.latent_library_size(adata)
    assert library.index.equals(adata.obs_names)
    assert library.dtype == np.float32
    np.testing.assert_array_equal(library, adata.obs["ldvae_library"])


def test_observed_libraries_are_totals_of_the_fitted_genes(
    simulated: AnnData, fit_quickly: Callable[..., AnnData]
) -> None:
    chosen = np.arange(60) % 4 > 0
    adata = fit_quickly(simulated, mask_var=chosen, use_observed_lib_size=True, copy=True)
    totals = np.asarray(simulated.X[:, chosen].sum(1)).ravel()
    np.testing.assert_allclose(get.latent_library_size(adata), totals, rtol=1e-6)


def test_means_sum_to_the_library(fitted: AnnData) -> None:
    mean = get.likelihood_parameters(fitted)["mean"]
    np.testing.assert_allclose(mean.sum(axis=1), get.latent_library_size(fitted), rtol=1e-5)
    proportions = tl.normalized_expression(fitted, library="own", progress=False)
    np.testing.assert_allclose(mean, proportions, rtol=1e-6)
