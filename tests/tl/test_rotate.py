"""Rotated factors: the rotations themselves, and fits whose factors are rotated."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.spatial.distance import pdist
from scipy.special import softmax, xlogy
from scipy.stats import ortho_group

from sc_ldvae import assess, get, tl
from sc_ldvae.record._covariance import packed
from sc_ldvae.record._sealed import sealed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

SIMPLE = ["varimax", "promax"]
METHODS = [*SIMPLE, "principal"]
each_method = pytest.mark.parametrize("method", METHODS)
to_simple_structure = pytest.mark.parametrize("method", SIMPLE)
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


def random_loadings(n_latent: int = 4, n_genes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    loadings = rng.gamma(0.3, 1.0, (n_genes, n_latent)) * rng.choice([-1, 1], (n_genes, n_latent))
    return loadings - loadings.mean(0), rng.gamma(1.0, 1.0, n_genes)


def criterion(loadings: np.ndarray, information: np.ndarray) -> float:
    return (information[:, None] * loadings**2).var(axis=0).sum()


def rotated(loadings: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return loadings @ np.linalg.inv(matrix).T


@to_simple_structure
def test_simple_structure_is_recovered(method: str) -> None:
    rng = np.random.default_rng(0)
    information, simple = rng.gamma(2.0, 1.0, 30), np.zeros((30, 3))
    for k in range(3):
        simple[10 * k : 10 * (k + 1), k] = (3 - k) * rng.gamma(2.0, 1.0, 10)
    turned = simple @ ortho_group.rvs(3, random_state=rng)
    matrix = assess.ROTATIONS[method](turned, information)
    np.testing.assert_allclose(rotated(turned, matrix), simple, atol=1e-6)


def test_no_other_rotation_is_simpler_than_varimax() -> None:
    loadings, information = random_loadings()
    best = loadings @ assess.varimax(loadings, information)
    rng = np.random.default_rng(0)
    others = [ortho_group.rvs(4, random_state=rng) for _ in range(200)]
    skew = rng.normal(size=(50, 4, 4))
    others += [expm(1e-3 * (one - one.T)) for one in skew]
    reached = criterion(best, information)
    assert max(criterion(best @ other, information) for other in others) < reached
    assert reached > 1.1 * criterion(loadings, information)


def test_varimax_is_stationary() -> None:
    """Where the gradient of the criterion along every rotation is zero, this matrix is symmetric."""
    loadings, information = random_loadings(6)
    weighted = np.sqrt(information)[:, None] * (loadings @ assess.varimax(loadings, information))
    gradient = weighted.T @ (weighted**3 - weighted * (weighted**2).mean(axis=0))
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-5 * abs(gradient).max())


@each_method
def test_rotation_of_the_input_does_not_matter(method: str) -> None:
    loadings, information = random_loadings()
    turn = ortho_group.rvs(4, random_state=0)
    one, other = (rotated(given, assess.ROTATIONS[method](given, information)) for given in (loadings, loadings @ turn))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_varimax_is_orthogonal() -> None:
    matrix = assess.varimax(*random_loadings())
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(4), atol=1e-12)


def test_promax_is_least_squares_towards_fourth_powers() -> None:
    loadings, information = random_loadings()
    matrix, orthogonal = (rotation(loadings, information) for rotation in (assess.promax, assess.varimax))
    np.testing.assert_allclose(np.diag(matrix.T @ matrix), 1, rtol=1e-12)
    x = np.sqrt(information)[:, None] * (loadings @ orthogonal)
    u = np.linalg.solve(x.T @ x, x.T @ (x * abs(x) ** 3))
    u *= np.sqrt(np.diag(np.linalg.inv(u.T @ u)))
    got, expected = rotated(loadings, matrix), loadings @ orthogonal @ u
    order = np.argsort(-(information @ expected**2))
    np.testing.assert_allclose(got, expected[:, order] * np.sign((expected[:, order] ** 3).sum(axis=0)), atol=1e-9)


@each_method
def test_rotated_factors_are_ordered_and_signed(method: str) -> None:
    loadings, information = random_loadings()
    matrix = assess.ROTATIONS[method](loadings, information)
    result = rotated(loadings, matrix)
    size = np.diag(matrix.T @ matrix) if method == "principal" else information @ result**2
    assert (np.diff(size) < 0).all()
    assert ((result**3).sum(axis=0) > 0).all()


def test_principal_axes_are_those_of_the_log_proportions() -> None:
    loadings, information = random_loadings()
    matrix = assess.principal(loadings, information)
    np.testing.assert_allclose(rotated(loadings, matrix).T @ rotated(loadings, matrix) / 40, np.eye(4), atol=1e-12)
    latent = np.random.default_rng(1).normal(size=(30, 4))
    expected = pdist(latent @ loadings.T) / np.sqrt(40)
    np.testing.assert_allclose(pdist(latent @ matrix), expected, rtol=1e-12)
    sizes = np.linalg.svd(loadings, compute_uv=False) / np.sqrt(40)
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), sizes, rtol=1e-12)


def test_principal_axes_without_length_stay() -> None:
    loadings, information = random_loadings(3)
    loadings = np.column_stack([loadings, loadings @ [1, -2, 0.5]])
    matrix = assess.principal(loadings, information)
    assert np.linalg.norm(matrix[:, -1]) == pytest.approx(1)
    np.testing.assert_allclose(rotated(loadings, matrix)[:, -1], 0, atol=1e-9)


@each_method
@pytest.mark.parametrize("n_latent", [1, 3])
def test_factors_without_loadings_stay(method: str, n_latent: int) -> None:
    loadings, information = random_loadings(n_latent)
    loadings = np.column_stack([np.zeros(40), loadings])
    matrix = assess.ROTATIONS[method](loadings, information)
    np.testing.assert_allclose(rotated(loadings, matrix)[:, -1], 0, atol=1e-9)
    np.testing.assert_allclose(np.diag(matrix.T @ matrix)[-1 if method == "principal" else slice(None)], 1, rtol=1e-9)


@pytest.fixture(scope="module", params=["nb", "zinb-gene-cell"])
def base(
    request: pytest.FixtureRequest,
    fitted: AnnData,
    simulated: AnnData,
    fit_quickly: Callable[..., AnnData],
    reseal: Callable[[AnnData], None],
) -> AnnData:
    """With errors that are as good as any."""
    if request.param == "nb":
        adata = fitted.copy()
    else:
        adata = fit_quickly(
            simulated, copy=True, batch_key="batch", gene_likelihood="zinb", dispersion="gene-cell", max_epochs=5
        )
    adata.obs["label"] = np.where(np.arange(200) % 3 > 0, "a", "b")
    halves = np.random.default_rng(0).normal(size=(60, 3, 5))
    covariance = packed(halves @ halves.transpose(0, 2, 1))
    adata.uns["ldvae"]["loadings_covariance"] = covariance
    reseal(adata)
    return adata


@pytest.fixture(scope="module", params=METHODS)
def both(request: pytest.FixtureRequest, base: AnnData) -> AnnData:
    """The fit, and beside it its rotation ``'rot'``; change a copy."""
    return tl.rotate(base, request.param, key_added="rot", copy=True)


def shown(adata: AnnData, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Latent and loadings, in double precision."""
    keys = adata.uns[key]["keys"]
    return adata.obsm[keys["latent"]].astype(float), adata.varm[keys["loadings"]].astype(float)


def design_of(adata: AnnData, key: str) -> np.ndarray:
    table = adata.uns[key]["covariates"]
    columns = []
    for name, level, mean, sd in zip(*(table[part] for part in ("key", "level", "mean", "sd")), strict=True):
        columns.append(adata.obs[name] == level if level else (adata.obs[name] - mean) / sd)
    return np.array(columns, dtype=float).T


def proportions(adata: AnnData, key: str, latent: np.ndarray) -> np.ndarray:
    """The formula of the documentation, with the decoder of the record."""
    loadings, intercept, effects = (
        adata.uns[key]["decoder"][part].astype(float) for part in ("loadings", "intercept", "covariate_effects")
    )
    return softmax(latent @ loadings.T + intercept + design_of(adata, key) @ effects.T, axis=1)


def test_decoded_means_stay(both: AnnData) -> None:
    means = [proportions(both, key, shown(both, key)[0]) for key in ("ldvae", "rot")]
    np.testing.assert_allclose(means[1], means[0], rtol=1e-5)
    assert abs(shown(both, "rot")[1] - shown(both, "ldvae")[1]).max() > 0.01


def test_latent_and_loadings_are_those_of_the_matrix(both: AnnData) -> None:
    matrix = both.uns["rot"]["rotation"]
    (latent, loadings), (new_latent, new_loadings) = (shown(both, key) for key in ("ldvae", "rot"))
    np.testing.assert_allclose(new_latent, latent @ matrix, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new_loadings, loadings @ np.linalg.inv(matrix).T, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(both.obsm["rot_variance"], both.obsm["X_ldvae_variance"])
    for entry in ("library", "held_out"):
        assert both.obs[f"rot_{entry}"].tolist() == both.obs[f"ldvae_{entry}"].tolist()


@to_simple_structure
def test_rotations_to_simple_structure_keep_the_prior_variance(method: str, base: AnnData) -> None:
    matrix = tl.rotate(base, method, key_added="rot", copy=True).uns["rot"]["rotation"]
    np.testing.assert_allclose(np.diag(matrix.T @ matrix), 1, rtol=1e-9)


def per_cell(score: Callable[..., float]) -> Callable[[AnnData, str], np.ndarray]:
    def scores(adata: AnnData, key: str) -> np.ndarray:
        adata = adata.copy()
        score(adata, key=key, key_added="score", progress=False, n_samples=2)
        return adata.obs["score"].to_numpy()

    return scores


def expression(adata: AnnData, key: str, **options: Any) -> np.ndarray:
    return tl.normalized_expression(adata, key=key, progress=False, **options).to_numpy()


def compared(adata: AnnData, key: str) -> np.ndarray:
    result = tl.differential_expression(adata, "label", key=key, copy=True, progress=False)
    frame = get.differential_expression(result)
    return frame[["logfoldchanges", "lfc_sd", "proba_de"]].sort_index().to_numpy(dtype=float)


SAME: dict[str, Callable[[AnnData, str], np.ndarray]] = {
    "elbo": per_cell(tl.elbo),
    "reconstruction_error": per_cell(tl.reconstruction_error),
    "marginal_log_likelihood": per_cell(tl.marginal_log_likelihood),
    "normalized_expression": expression,
    "draws": lambda adata, key: expression(adata, key, n_samples=3, rng=5),
    "differential_expression": compared,
    "likelihood_parameters": lambda adata, key: np.stack(
        [frame.to_numpy() for frame in get.likelihood_parameters(adata, key=key).values()]
    ),
    "feature_correlation": lambda adata, key: get.feature_correlation(adata, key=key).to_numpy(),
    "latent_library_size": lambda adata, key: get.latent_library_size(adata, key=key).to_numpy(),
}


@pytest.mark.parametrize("function", SAME.values(), ids=SAME)
def test_what_does_not_look_at_single_factors_stays(
    function: Callable[[AnnData, str], np.ndarray], both: AnnData
) -> None:
    got, expected = function(both, "rot"), function(both, "ldvae")
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(got, expected, **ROUNDING)


def test_posterior_sd_is_that_of_rotated_draws(both: AnnData) -> None:
    frame, rng = get.factors(both, key="rot"), np.random.default_rng(0)
    latent, variance = shown(both, "ldvae")[0], both.obsm["X_ldvae_variance"]
    draws = (latent + np.sqrt(variance) * rng.normal(size=(4000, *latent.shape))) @ both.uns["rot"]["rotation"]
    np.testing.assert_allclose(frame["posterior_sd"], np.sqrt(draws.var(axis=0).mean(axis=0)), rtol=0.01)
    np.testing.assert_allclose(frame["sd"], draws.mean(axis=0).std(axis=0), rtol=0.01)
    assert frame.index.tolist() == ["rot1", "rot2", "rot3"]


def test_factors_are_set_as_they_are_shown(both: AnnData) -> None:
    latent = shown(both, "rot")[0]
    for factors, column in (({2: 1.5, "rot3": None}, [1.5, 0.0]), ([1], [0.0, 0.0])):
        latent[:, 1:] = column
        np.testing.assert_allclose(
            expression(both, "rot", factors=factors), proportions(both, "rot", latent), rtol=1e-4
        )


def test_projected_cells_get_rotated_factors(both: AnnData) -> None:
    query = both[::3, ::-1].copy()
    for mapping in ("obsm", "varm", "uns"):
        getattr(query, mapping).clear()
    tl.project(query, both, key="rot", progress=False)
    # A matrix product of fewer rows.
    np.testing.assert_allclose(query.obsm["rot"], both.obsm["rot"][::3], rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(query.obsm["rot_variance"], both.obsm["rot_variance"][::3])
    np.testing.assert_array_equal(query.varm["rot"], both.varm["rot"][::-1])
    np.testing.assert_array_equal(query.varm["rot_se"], both.varm["rot_se"][::-1])
    np.testing.assert_allclose(expression(query, "rot")[:, ::-1], expression(both, "rot")[::3, ::-1], rtol=1e-6)


def deviances(counts: np.ndarray, mean: np.ndarray, theta: np.ndarray) -> float:
    """Of the negative binomial, over all cells and genes."""
    terms = xlogy(counts, counts / mean) - (counts + theta) * np.log((counts + theta) / (mean + theta))
    return 2 * terms.sum()


@each_method
def test_explained_deviance_is_that_of_the_rotated_factors(method: str, fitted: AnnData) -> None:
    adata = tl.rotate(fitted, method, key_added="rot", copy=True)
    content, latent, library = adata.uns["rot"], shown(adata, "rot")[0], adata.obs["rot_library"].to_numpy(dtype=float)
    held_out, theta = adata.obs["rot_held_out"].to_numpy(), np.exp(content["decoder"]["log_theta"].astype(float))
    counts = adata.X.toarray().astype(float)
    totals = counts[~held_out].sum(axis=0) + 0.5

    def deviance(shares: np.ndarray) -> float:
        return deviances(counts[held_out], library[held_out, None] * shares, theta)

    null = deviance(np.tile(totals / totals.sum(), (held_out.sum(), 1)))
    fit = deviance(proportions(adata, "rot", latent)[held_out])

    def lost(*left_out: int) -> float:
        """Of the null's deviance, without some factors: they are averaged out of the expected counts."""
        without = latent.copy()
        without[:, left_out] = latent[held_out][:, left_out].mean(axis=0)
        every, some = (
            (library[:, None] * proportions(adata, "rot", one))[held_out].sum(axis=0) for one in (latent, without)
        )
        shares = proportions(adata, "rot", without)[held_out] * every / some
        return deviance(shares / shares.sum(axis=1, keepdims=True)) / null

    expected = np.zeros(3)
    for order in permutations(range(3)):
        for place, k in enumerate(order):
            expected[k] += (lost(*order[place:]) - lost(*order[place + 1 :])) / 6
    np.testing.assert_allclose(content["explained_deviance"], expected, atol=5e-4)
    assert (np.diff(content["explained_deviance"]) <= 0).all()
    assert content["total_explained_deviance"] == pytest.approx(1 - fit / null, rel=1e-3)
    assert content["total_explained_deviance"] == pytest.approx(
        fitted.uns["ldvae"]["total_explained_deviance"], rel=1e-4
    )


def test_without_held_out_cells_all_are_scored(fitted: AnnData) -> None:
    marks = {}
    for held_out in (True, False):
        adata = fitted.copy()
        adata.obs["ldvae_held_out"] = held_out
        tl.rotate(adata, key_added="rot")
        marks[held_out] = adata.uns["rot"]["explained_deviance"]
    np.testing.assert_array_equal(marks[True], marks[False])
    del adata.obs["ldvae_held_out"], adata.obs["rot_held_out"]
    tl.rotate(adata, key_added="rot")
    assert "rot_held_out" not in adata.obs
    np.testing.assert_array_equal(adata.uns["rot"]["explained_deviance"], marks[False])


def test_errors_turn_with_the_loadings(both: AnnData) -> None:
    inverse = np.linalg.inv(both.uns["rot"]["rotation"])
    for gene in (0, 7):
        covariance = np.zeros((3, 3))
        covariance[np.tril_indices(3)] = both.uns["ldvae"]["loadings_covariance"][gene]
        covariance += np.tril(covariance, -1).T
        turned = inverse @ covariance @ inverse.T
        np.testing.assert_allclose(both.uns["rot"]["loadings_covariance"][gene], turned[np.tril_indices(3)], rtol=1e-4)
        np.testing.assert_allclose(both.varm["rot_se"][gene], np.sqrt(np.diag(turned)), rtol=1e-5)
    np.testing.assert_allclose(get.loadings_se(both, key="rot"), both.varm["rot_se"], rtol=1e-6)
    assert both.uns["rot"]["loadings_covariance"].dtype == np.float32


def test_without_errors_there_are_none(fitted: AnnData, reseal: Callable[[AnnData], None]) -> None:
    adata = fitted.copy()
    adata.uns["ldvae"].pop("loadings_covariance", None)
    reseal(adata)
    tl.rotate(adata, key_added="rot")
    assert "rot_se" not in adata.varm
    assert "loadings_covariance" not in adata.uns["rot"]


@pytest.mark.parametrize("second", METHODS)
def test_a_rotated_fit_is_rotated_from_where_it_started(second: str, both: AnnData) -> None:
    at_once = tl.rotate(both, second, key_added="new", copy=True)
    twice = tl.rotate(both, second, key="rot", key_added="new", copy=True)
    for entry in ("rotation", "loadings_covariance", "explained_deviance"):
        np.testing.assert_allclose(twice.uns["new"][entry], at_once.uns["new"][entry], rtol=1e-3, atol=1e-4)
    for one, other in zip(shown(twice, "new"), shown(at_once, "new"), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    on_the_fly = (get.loadings(both, rotation=second, key=key).to_numpy() for key in ("ldvae", "rot"))
    np.testing.assert_allclose(*on_the_fly, atol=1e-4)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_rotated_fits_survive_files(suffix: str, fitted: AnnData, tmp_path: Path) -> None:
    both, path = tl.rotate(fitted, "promax", key_added="rot", copy=True), tmp_path / f"rotated.{suffix}"
    getattr(both, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path)
    np.testing.assert_array_equal(expression(back, "rot", factors=[1]), expression(both, "rot", factors=[1]))
    assert get.factors(back, key="rot").equals(get.factors(both, key="rot"))
    assert tl.elbo(back, key="rot", progress=False) == tl.elbo(both, key="rot", progress=False)
    assert back.uns["rot"]["rotation"].dtype == np.float64


def test_nothing_else_is_touched(base: AnnData, unchanged: Callable[[AnnData], Any]) -> None:
    with unchanged(base):
        copied = tl.rotate(base, key_added="rot", copy=True)
    adata = base.copy()
    assert tl.rotate(adata, key_added="rot") is None
    np.testing.assert_array_equal(adata.obsm["rot"], copied.obsm["rot"])
    adata.obsm["rot_variance"][:] = 7
    adata.uns["rot"]["encoder"]["z"]["mean_bias"][:] = 7
    with unchanged(base):
        del adata.uns["rot"], adata.varm["rot"], adata.varm["rot_se"]
    for key in ("rot", "rot_variance"):
        del adata.obsm[key]
    adata.obs = adata.obs.drop(columns=["rot_library", "rot_held_out", "rot_fit"])
    np.testing.assert_array_equal(adata.obsm["X_ldvae_variance"], base.obsm["X_ldvae_variance"])
    assert set(adata.obsm) == set(base.obsm)
    assert set(adata.varm) == set(base.varm)
    assert set(adata.uns) == set(base.uns)


def test_of_a_modality(fitted: AnnData) -> None:
    mdata = mudata.MuData({"rna": fitted.copy()})
    tl.rotate(mdata, modality="rna", key_added="rot")
    expected = tl.rotate(fitted, key_added="rot", copy=True)
    np.testing.assert_array_equal(mdata["rna"].obsm["rot"], expected.obsm["rot"])


def without_x(adata: AnnData) -> None:
    adata.X = None


def as_shares(adata: AnnData) -> None:
    adata.uns["ldvae"]["params"]["latent_distribution"] = "ln"
    adata.uns["ldvae"] = sealed(adata.uns["ldvae"])


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        pytest.param(None, {"key_added": None}, "key_added is missing: the rotated fit stands", id="no-key"),
        pytest.param(None, {"key_added": "a/b"}, "key_added='a/b' can't name an entry", id="slash"),
        pytest.param(None, {"key_added": "ldvae"}, "key_added='ldvae' would overwrite 'ldvae' of the fit", id="same"),
        pytest.param(None, {"key_added": "X_ldvae"}, "would overwrite 'X_ldvae' of the fit", id="key-of-the-latent"),
        pytest.param(None, {"method": "quartimax"}, "method='quartimax' is unknown. Choose 'varimax' or", id="method"),
        pytest.param(None, {"key": "foo"}, r"uns\['foo'\] holds no fit", id="no-fit"),
        pytest.param(None, {"layer": "foo"}, "layer='foo' is not in layers", id="layer"),
        pytest.param(without_x, {}, "X is empty. Name the layer that holds the counts", id="no-counts"),
        pytest.param(as_shares, {}, "method='varimax' was given, but with latent_distribution='ln' factors", id="ln"),
    ],
)
def test_bad_input_is_refused(
    change: Callable[[AnnData], None] | None,
    options: dict[str, Any],
    sentence: str,
    fitted: AnnData,
    unchanged: Callable[[AnnData], Any],
) -> None:
    adata = fitted.copy()
    if change is not None:
        change(adata)
    with unchanged(adata), pytest.raises(ValueError, match=sentence):
        tl.rotate(adata, **{"key_added": "rot"} | options)


def test_genes_that_were_not_fitted_get_zeros_and_no_errors(
    simulated: AnnData, fit_quickly: Callable[..., AnnData]
) -> None:
    fitted = np.arange(60) % 4 > 0
    adata = fit_quickly(simulated, mask_var=fitted, key_added="foo", copy=True)
    tl.rotate(adata, key="foo", key_added="rot")
    assert (adata.varm["rot"][~fitted] == 0).all()
    np.testing.assert_array_equal(np.isnan(adata.varm["rot_se"]), np.repeat(~fitted[:, None], 3, axis=1))
    np.testing.assert_allclose(adata.varm["rot"], adata.varm["foo"] @ adata.uns["rot"]["rotation"], atol=1e-5)
