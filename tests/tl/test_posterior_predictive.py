from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.image
import mudata
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from scipy import sparse, stats
from scipy.special import softmax

import sc_ldvae
from sc_ldvae import get, pl, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

N_DRAWS = 200
MODES = [
    pytest.param({"gene_likelihood": likelihood, "dispersion": dispersion, "latent_distribution": latent}, id=name)
    for likelihood in ("nb", "zinb", "poisson")
    for dispersion in ("gene", "gene-batch", "gene-label", "gene-cell")
    for latent in ("normal", "ln")
    for name in [f"{likelihood}-{dispersion}-{latent}"]
] + [pytest.param({"gene_likelihood": "bernoulli"}, id="bernoulli")]


@pytest.fixture(scope="module")
def annotated() -> AnnData:
    adata = sc_ldvae.datasets.simulate(120, 30, 3, n_batches=3, n_continuous=1, mean_library=300, rng=0)
    adata.obs["label"] = np.random.default_rng(0).choice(["a", "b"], 120)
    return adata


@pytest.fixture(scope="module")
def fit_all(annotated: AnnData, fit_quickly: Callable[..., AnnData]) -> Callable[..., AnnData]:
    """A fit with batch, labels and a covariate."""

    def fit(**options: Any) -> AnnData:
        arguments = {"batch_key": "batch", "labels_key": "label", "continuous_covariate_keys": ["covariate1"]}
        return fit_quickly(annotated, copy=True, **arguments | options)

    return fit


@pytest.fixture(scope="module")
def checked(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    """Fitted, with one draw and with three."""
    adata = fit_quickly(simulated, mask_var=np.arange(60) % 4 > 0, copy=True)
    draw(adata, key_added="posterior_predictive")
    draw(adata, 3, key_added="more")
    return adata


def draw(adata: AnnData, n_samples: int = 1, **options: Any) -> list[sparse.csr_matrix]:
    return tl.posterior_predictive(adata, n_samples, progress=False, **options)


def certain(adata: AnnData) -> AnnData:
    """Every draw of the latent is its posterior mean: the distribution of the counts is known."""
    adata.obsm["X_ldvae_variance"][:] = 0
    return adata


def dense(samples: list[sparse.csr_matrix]) -> np.ndarray:
    return np.stack([sample.toarray() for sample in samples]).astype(np.float64)


def moments(parameters: dict[str, Any], *, thresholded: bool) -> tuple[np.ndarray, ...]:
    """First, second and fourth moment, and probability of zero, by SciPy and the factorial moments."""
    values = {name: frame.to_numpy(dtype=np.float64) for name, frame in parameters.items()}
    if thresholded:
        zero = stats.poisson(values["mean"]).pmf(0)
        return 1 - zero, 1 - zero, 1 - zero, zero
    mu, theta, kept = values["mean"], values.get("theta"), 1 - values.get("zero_inflation", 0.0)
    law = stats.poisson(mu) if theta is None else stats.nbinom(theta, theta / (theta + mu))
    growth = [1.0 if theta is None else (theta + i) / theta for i in range(4)]
    f1, f2, f3, f4 = np.cumprod([mu * one for one in growth], axis=0)
    first, second, zero = law.mean(), law.var() + law.mean() ** 2, law.pmf(0)
    return kept * first, kept * second, kept * (f4 + 6 * f3 + 7 * f2 + f1), 1 - kept + kept * zero


def assert_within_monte_carlo_error(
    drawn: np.ndarray, mean: np.ndarray, variance: np.ndarray, largest: float = 4.5
) -> None:
    """Of sums over cells and over genes, in standard errors. The draws have a fixed seed: this is no matter of luck."""
    for axis in (0, 1):
        errors = (drawn.mean(0) - mean).sum(axis) / np.sqrt(variance.sum(axis) / len(drawn))
        assert np.abs(errors).max() < largest
        assert 0.5 < errors.std() < 1.6


@pytest.mark.parametrize("options", MODES)
def test_counts_have_the_distribution_of_the_parameters(
    options: dict[str, str], fit_all: Callable[..., AnnData]
) -> None:
    # test_likelihood.py holds the parameters to plain NumPy.
    adata = certain(fit_all(**options))
    thresholded = options["gene_likelihood"] == "bernoulli"
    first, second, fourth, zero = moments(get.likelihood_parameters(adata), thresholded=thresholded)
    counts = dense(draw(adata, N_DRAWS, rng=1))
    assert_within_monte_carlo_error(counts, first, second - first**2)
    # Sums of squares are skewed.
    assert_within_monte_carlo_error(counts**2, second, fourth - second**2, largest=7)
    assert_within_monte_carlo_error(counts == 0, zero, zero * (1 - zero))


@pytest.mark.parametrize("distribution", ["normal", "ln"])
def test_latent_is_drawn_from_its_posterior(distribution: str, fit_all: Callable[..., AnnData]) -> None:
    adata = fit_all(gene_likelihood="poisson", latent_distribution=distribution)
    adata.obsm["X_ldvae_variance"][:] = [0.5, 1, 2]
    noise = np.random.default_rng(0).normal(size=(2000, 120, 3)) * np.sqrt([0.5, 1, 2])
    latent = adata.obsm["X_ldvae"] + noise
    if distribution == "ln":
        latent = softmax(np.log(adata.obsm["X_ldvae"]) + noise, axis=-1)
    decoder = adata.uns["ldvae"]["decoder"]
    at_zero = get.likelihood_parameters(adata)["mean"].to_numpy() / adata.obs[["ldvae_library"]].to_numpy()
    rest = np.log(at_zero) - adata.obsm["X_ldvae"] @ decoder["loadings"].T
    means = softmax(latent @ decoder["loadings"].T + rest, axis=-1) * adata.obs[["ldvae_library"]].to_numpy()
    # Given the latent the genes are Poisson, so the variance is the mean and that of the mean.
    counts = dense(draw(adata, 1600, rng=2))
    gap = (counts.mean(0) - means.mean(0)).sum(0)
    assert (np.abs(gap) < 4.5 * np.sqrt((means.mean(0) + means.var(0)).sum(0) * (1 / 1600 + 1 / 2000))).all()
    variance = (counts.var(0) - means.mean(0)).mean(0)
    np.testing.assert_allclose(variance, means.var(0).mean(0), rtol=0.3, atol=0.15)
    assert np.corrcoef(variance, means.var(0).mean(0))[0, 1] > 0.95


@pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])
def test_another_batch_and_covariate(dispersion: str, fit_all: Callable[..., AnnData]) -> None:
    adata = certain(fit_all(dispersion=dispersion))
    counterfactual = adata.copy()
    counterfactual.obs["batch"], counterfactual.obs["covariate1"] = "batch1", 0.5
    drawn = draw(adata, batch="batch1", covariates={"covariate1": 0.5})[0]
    np.testing.assert_array_equal(drawn.toarray(), draw(counterfactual)[0].toarray())
    as_covariate = draw(adata, covariates={"covariate1": 0.5, "batch": "batch1"})[0]
    np.testing.assert_array_equal(as_covariate.toarray(), drawn.toarray())
    assert (drawn != draw(adata)[0]).nnz
    assert draw(adata, covariates={"covariate1": "mean"})[0].shape == (120, 30)


def test_results_are_sparse_counts_of_the_fitted_genes(checked: AnnData) -> None:
    samples = draw(checked, 3)
    assert len(samples) == 3
    for sample in samples:
        assert isinstance(sample, sparse.csr_matrix)
        assert sample.dtype == np.float32
        assert sample.shape == (200, 45)
        assert sample.has_canonical_format
        assert (sample.data > 0).all()
        np.testing.assert_array_equal(sample.data, np.rint(sample.data))
    assert (samples[0] != samples[1]).nnz


def test_genes_come_in_the_order_asked_for(fit_all: Callable[..., AnnData]) -> None:
    adata = certain(fit_all())
    (everything,), (some,) = draw(adata), draw(adata, genes=["gene20", "gene3"])
    assert some.shape == (120, 2)
    expected = get.likelihood_parameters(adata, genes=["gene20", "gene3"])["mean"].sum().to_numpy()
    np.testing.assert_allclose(some.sum(0), expected[None], rtol=0.2)
    np.testing.assert_allclose(everything[:, [20, 3]].sum(0), expected[None], rtol=0.2)
    assert draw(adata, genes="gene3")[0].shape == (120, 1)


def test_seeds(fitted: AnnData) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002  it is the global state that must stay as it is
    first, second = draw(fitted, 2, rng=1)
    np.testing.assert_array_equal(draw(fitted, rng=np.random.default_rng(1))[0].toarray(), first.toarray())
    np.testing.assert_array_equal(draw(fitted, 2, rng=1)[1].toarray(), second.toarray())
    assert (draw(fitted, rng=2)[0] != first).nnz
    assert (draw(fitted, rng=None)[0] != first).nnz
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(draw(fitted, rng=generator)[0].toarray(), first.toarray())
    np.testing.assert_array_equal(draw(fitted, rng=generator)[0].toarray(), second.toarray())
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002  the same


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("n_at_once", [1, 31, 3000])
def test_draws_do_not_depend_on_the_chunks(
    n_at_once: int, likelihood: str, fit_all: Callable[..., AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = fit_all(gene_likelihood=likelihood)
    (whole,) = draw(adata)
    monkeypatch.setattr("sc_ldvae.decode._counts._AT_ONCE", n_at_once)
    np.testing.assert_array_equal(draw(adata)[0].toarray(), whole.toarray())


def test_without_counts_nothing_is_changed(fitted: AnnData, unchanged: Callable) -> None:
    adata = fitted.copy()
    del adata.X
    with unchanged(adata):
        (sample,) = draw(adata)
    np.testing.assert_array_equal(sample.toarray(), draw(fitted)[0].toarray())


@pytest.mark.parametrize("n_samples", [1, 2])
def test_layers(n_samples: int, checked: AnnData) -> None:
    adata = checked[:, ::-1].copy()
    before = set(adata.layers)
    assert draw(adata, n_samples, key_added="drawn") is None
    names = ["drawn"] if n_samples == 1 else ["drawn_1", "drawn_2"]
    assert set(adata.layers) - before == set(names)
    fitted = adata.var_names.isin(adata.uns["ldvae"]["genes"])
    for name, sample in zip(names, draw(adata, n_samples), strict=True):
        layer = adata.layers[name]
        assert layer.has_canonical_format
        np.testing.assert_array_equal(layer[:, fitted].toarray(), sample.toarray()[:, ::-1])
        assert not layer[:, ~fitted].nnz


def test_layer_of_some_genes_and_of_fewer_than_fitted(checked: AnnData) -> None:
    adata = checked[:, 10:].copy()
    draw(adata, key_added="drawn", genes=["gene1", "gene21", "gene14"])
    totals = np.asarray(adata.layers["drawn"].sum(0)).ravel()
    assert adata.var_names[totals > 0].tolist() == ["gene14", "gene21"]


def test_modality(fitted: AnnData) -> None:
    mdata = mudata.MuData({"rna": fitted.copy()})
    np.testing.assert_array_equal(draw(mdata, modality="rna")[0].toarray(), draw(fitted)[0].toarray())
    draw(mdata, modality="rna", key_added="drawn")
    assert mdata["rna"].layers["drawn"].shape == fitted.shape


def test_progress_counts_draws(fitted: AnnData, capsys: pytest.CaptureFixture[str]) -> None:
    tl.posterior_predictive(fitted, 2)
    assert "400/400" in capsys.readouterr().err
    draw(fitted)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        pytest.param({"key": "foo"}, ValueError, r"^uns\['foo'\] holds no fit", id="fit"),
        pytest.param({"n_samples": 0}, ValueError, "^n_samples must be at least 1", id="no-draw"),
        pytest.param({"n_samples": 1.5}, TypeError, "^n_samples must be a whole number", id="half-a-draw"),
        pytest.param({"key_added": "a/b"}, ValueError, r"^key_added='a/b' can't name", id="key"),
        pytest.param({"genes": ["CD3D"]}, ValueError, "^genes holds 'CD3D'", id="gene"),
        pytest.param({"genes": ["gene1", "gene1"]}, ValueError, "^genes holds 'gene1' more than once", id="twice"),
        pytest.param({"batch": "mean"}, ValueError, "^batch can't be 'mean'.*'batch0', 'batch1'", id="mean"),
        pytest.param({"covariates": {"batch": "mean"}}, ValueError, "^batch can't be 'mean'", id="mean-as-covariate"),
        pytest.param({"batch": "other"}, ValueError, "^'other' is no level of the covariate 'batch'", id="level"),
        pytest.param({"covariates": {"age": 3}}, ValueError, "^'age' is no covariate of the fit", id="covariate"),
        pytest.param({"modality": "rna"}, ValueError, "^modality='rna' was given", id="modality"),
    ],
)
def test_refusals(
    options: dict[str, Any], error: type[Exception], sentence: str, fitted: AnnData, unchanged: Callable
) -> None:
    adata = fitted.copy()
    with unchanged(adata), pytest.raises(error, match=sentence):
        draw(adata, **{"key_added": "drawn"} | options)


def test_the_mean_of_another_category_is_refused(annotated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(annotated, categorical_covariate_keys=["label"], copy=True)
    with pytest.raises(ValueError, match=r"^covariates\['label'\] can't be 'mean'.*'a', 'b'"):
        draw(adata, covariates={"label": "mean"})


def test_what_does_not_fit_into_memory_is_refused(
    fitted: AnnData, unchanged: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Memory:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    adata = fitted.copy()
    with unchanged(adata), pytest.raises(MemoryError, match=r"^4 sparse matrices of 200 cells x 60 genes.*n_samples"):
        draw(adata, 4, key_added="drawn")


def offsets(axis: Axes) -> list[np.ndarray]:
    return [np.asarray(points.get_offsets()) for points in axis.collections]


def of_fitted(adata: AnnData, matrix: sparse.csr_matrix) -> np.ndarray:
    return matrix.toarray()[:, adata.var_names.isin(adata.uns["ldvae"]["genes"])].astype(np.float64)


def test_points_are_the_shares_of_zeros(checked: AnnData) -> None:
    axes = pl.posterior_predictive(checked, show=False)
    observed, predicted = (of_fitted(checked, m) for m in (checked.X, checked.layers["posterior_predictive"]))
    (points,) = offsets(axes[0])
    np.testing.assert_allclose(points, np.column_stack([(observed == 0).mean(0), (predicted == 0).mean(0)]))
    (diagonal,) = axes[0].lines
    assert diagonal.get_slope() == 1
    assert diagonal.get_xy1() == (0, 0)
    assert axes[0].collections[0].get_rasterized()


def test_points_are_means_and_variances(checked: AnnData) -> None:
    axes = pl.posterior_predictive(checked, show=False)
    for points, matrix in zip(offsets(axes[1]), (checked.X, checked.layers["posterior_predictive"]), strict=True):
        counts = of_fitted(checked, matrix)
        np.testing.assert_allclose(points, np.column_stack([counts.mean(0), counts.var(0)]))
    assert (axes[1].get_xscale(), axes[1].get_yscale()) == ("log", "log")
    (poisson,) = axes[1].lines
    assert (poisson.get_xy1(), poisson.get_xy2()) == ((1, 1), (2, 2))
    assert all(points.get_rasterized() for points in axes[1].collections)
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["observed", "predicted", "Poisson"]


def test_of_bernoulli_zeros_and_ones_are_shown(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(simulated, gene_likelihood="bernoulli", copy=True)
    draw(adata, key_added="posterior_predictive")
    axes = pl.posterior_predictive(adata, show=False)
    for points, matrix in zip(offsets(axes[1]), (adata.X, adata.layers["posterior_predictive"]), strict=True):
        shares = (matrix.toarray() > 0).mean(0)
        shown = shares < 1
        np.testing.assert_allclose(points, np.column_stack([shares, shares * (1 - shares)])[shown], atol=1e-12)
    numbers = (adata.X.toarray() > 0).sum(1)
    assert axes[2].patches[0].get_x() <= numbers.min() < numbers.max() <= 60


def test_histograms_are_of_the_totals(checked: AnnData) -> None:
    axis = pl.posterior_predictive(checked, show=False)[2]
    *bars, step = axis.patches
    edges = [bar.get_x() for bar in bars] + [bars[-1].get_x() + bars[-1].get_width()]
    edges = np.geomspace(edges[0], edges[-1], len(edges))
    observed, predicted = (
        np.histogram(of_fitted(checked, m).sum(1), edges)[0] / 200
        for m in (checked.X, checked.layers["posterior_predictive"])
    )
    np.testing.assert_allclose([bar.get_height() for bar in bars], observed, atol=0.011)
    np.testing.assert_allclose(step.get_xy()[1:-1:2, 1], predicted, atol=0.011)
    assert sum(bar.get_height() for bar in bars) == pytest.approx(1)
    assert axis.get_xscale() == "log"
    assert axis.get_ylim()[1] > 1.1 * max(*observed, *predicted)


def test_several_draws_are_picked_up(checked: AnnData) -> None:
    axes = pl.posterior_predictive(checked, "more", show=False)
    draws = [of_fitted(checked, checked.layers[f"more_{i}"]) for i in (1, 2, 3)]
    (points,) = offsets(axes[0])
    np.testing.assert_allclose(points[:, 1], np.mean([(counts == 0).mean(0) for counts in draws], axis=0))
    _, predicted = offsets(axes[1])
    np.testing.assert_allclose(predicted[:, 1], np.mean([counts.var(0) for counts in draws], axis=0))
    assert max(axes[2].patches[-1].get_xy()[:, 1]) < 1


def test_labels_and_colours(checked: AnnData) -> None:
    axes = pl.posterior_predictive(checked, show=False)
    assert [axis.get_title() for axis in axes] == [
        "share of zeros per gene",
        "variance of a gene",
        "total counts of a cell",
    ]
    assert [(axis.get_xlabel(), axis.get_ylabel()) for axis in axes] == [
        ("observed", "predicted"),
        ("mean count", "variance"),
        ("counts over fitted genes", "share of cells"),
    ]
    predicted = {to_hex(points.get_facecolor()[0]) for points in (axes[0].collections[0], axes[1].collections[1])}
    assert predicted == {to_hex(axes[2].patches[-1].get_edgecolor())}
    assert to_hex(axes[1].collections[0].get_facecolor()[0]) not in predicted
    figure = axes[0].figure
    figure.canvas.draw()
    boxes = [axis.get_tightbbox() for axis in axes]
    assert not any(boxes[i].overlaps(boxes[i + 1]) for i in range(2))


def test_genes_that_are_not_there_are_not_taken_for_others(checked: AnnData) -> None:
    adata = checked.copy()
    gone = adata.uns["ldvae"]["genes"][0]
    adata.var_names = adata.var_names.str.replace(f"^{gone}$", "renamed", regex=True)
    with pytest.raises(ValueError, match=rf"^1 of the \d+ genes of the fit are not among var_names \('{gone}'\)"):
        pl.posterior_predictive(adata, show=False)


def test_layer_names_the_observed_counts(checked: AnnData) -> None:
    adata = checked.copy()
    adata.layers["counts"], adata.X = adata.X, None
    (points,) = offsets(pl.posterior_predictive(adata, layer="counts", show=False)[0])
    np.testing.assert_allclose(points, offsets(pl.posterior_predictive(checked, show=False)[0])[0])
    with pytest.raises(ValueError, match=r"^X is empty. Name the layer"):
        pl.posterior_predictive(adata, show=False)
    with pytest.raises(ValueError, match=r"^layer='raw' is not in layers"):
        pl.posterior_predictive(adata, layer="raw", show=False)


def test_layer_of_the_fit_is_the_default(simulated: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = simulated.copy()
    adata.layers["counts"], adata.X = adata.X, None
    fit_quickly(adata, layer="counts", key_added="foo")
    draw(adata, key="foo", key_added="posterior_predictive")
    mdata = mudata.MuData({"rna": adata})
    assert len(pl.posterior_predictive(mdata, key="foo", modality="rna", show=False)) == 3


def test_missing_draws_are_refused(fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^samples='drawn' names no drawn counts: .*key_added='drawn'\)"):
        pl.posterior_predictive(fitted, "drawn", show=False)
    with pytest.raises(ValueError, match=r"^uns\['foo'\] holds no fit"):
        pl.posterior_predictive(fitted, key="foo", show=False)
    assert not plt.get_fignums()


def test_given_axes(checked: AnnData, tmp_path: Path) -> None:
    _, axes = plt.subplots(1, 3)
    assert pl.posterior_predictive(checked, ax=axes, show=False, save=tmp_path / "plot.png") == list(axes)
    assert matplotlib.image.imread(tmp_path / "plot.png").shape[0] > 200
    with pytest.raises(ValueError, match=r"^ax holds 2 axes, but 3 panels"):
        pl.posterior_predictive(checked, ax=axes[:2], show=False)


def test_show(checked: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    assert pl.posterior_predictive(checked, show=True) is None
    assert shown == [True]


def test_plot_changes_nothing(checked: AnnData, unchanged: Callable) -> None:
    before = dict(plt.rcParams)
    with unchanged(checked):
        pl.posterior_predictive(checked, show=False)
    assert dict(plt.rcParams) == before
