"""Stability of factors: matching and scores in NumPy, refits of simulations, and what is refused."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import torch

import sc_ldvae
from sc_ldvae import assess, get, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    AssertSame = Callable[[object, object], None]
    Unchanged = Callable[[ad.AnnData], AbstractContextManager[None]]

NAME = "ldvae_stability"


def drawn(n_latent: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(50, n_latent)), rng.gamma(1.0, 1.0, 50)


def cosine(one: np.ndarray, other: np.ndarray, weights: np.ndarray) -> float:
    one, other = (values - (weights * values).sum() / weights.sum() for values in (one, other))
    norms = (weights * one**2).sum() * (weights * other**2).sum()
    return (weights * one * other).sum() / np.sqrt(norms)


def compared(loadings: np.ndarray, refits: list[np.ndarray], weights: np.ndarray, *, halves: bool) -> assess.Stability:
    pairs = [(i, i + 1) for i in range(0, len(refits), 2)]
    return assess.stability(loadings, refits, pairs, weights, halves=halves)


def test_inner_products_of_directions_are_weighted_cosines() -> None:
    (one, weights), (other, _) = drawn(), drawn(seed=1)
    got = assess.directions(one, weights).T @ assess.directions(other, weights)
    expected = [[cosine(a, b, weights) for b in other.T] for a in one.T]
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_constant_over_the_genes_changes_no_direction() -> None:
    loadings, weights = drawn()
    moved = 3 * loadings + np.array([5.0, -2.0, 0.5, 100.0])
    np.testing.assert_allclose(assess.directions(moved, weights), assess.directions(loadings, weights), atol=1e-12)


def test_genes_without_weight_do_not_count() -> None:
    loadings, weights = drawn()
    weights[:20] = 0
    changed = loadings.copy()
    changed[:20] += np.random.default_rng(1).normal(0, 10, (20, 4))
    np.testing.assert_allclose(assess.directions(changed, weights), assess.directions(loadings, weights), atol=1e-12)


def test_factor_without_loadings_matches_nothing() -> None:
    loadings, weights = drawn()
    own, other = assess.directions(loadings, weights), assess.directions(loadings * [1, 1, 0, 1], weights)
    assert not other[:, 2].any()
    partners, cosines = assess.matched(own, other)
    assert partners.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(cosines, [1, 1, 0, 1], atol=1e-12)
    fitted = other @ np.linalg.lstsq(other, own, rcond=None)[0]
    np.testing.assert_allclose(assess.spanned(own, other), np.linalg.norm(fitted, axis=0), atol=1e-12)


def test_partners_of_a_permuted_and_flipped_copy() -> None:
    loadings, weights = drawn()
    order, signs = np.array([2, 0, 3, 1]), np.array([1.0, -1.0, -1.0, 1.0])
    own, other = (assess.directions(values, weights) for values in (loadings, loadings[:, order] * signs))
    partners, cosines = assess.matched(own, other)
    assert order[partners].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(cosines, signs[partners], atol=1e-12)
    np.testing.assert_allclose(assess.spanned(own, other), 1, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_has_larger_cosines(seed: int) -> None:
    (one, weights), (other, _) = drawn(seed=seed), drawn(seed=seed + 100)
    own, other = (assess.directions(values, weights) for values in (one, other))
    partners, cosines = assess.matched(own, other)
    absolute = np.abs(own.T @ other)
    best = max(permutations(range(4)), key=lambda order: sum(absolute[k, order[k]] for k in range(4)))
    assert partners.tolist() == list(best)
    np.testing.assert_allclose(np.abs(cosines), absolute[np.arange(4), partners])


def test_space_that_factors_span() -> None:
    """The cosine with the best of all mixtures, by least squares."""
    (one, weights), (other, _) = drawn(3), drawn(3, seed=1)
    own, other = (assess.directions(values, weights) for values in (one, other))
    fitted = other @ np.linalg.lstsq(other, own, rcond=None)[0]
    np.testing.assert_allclose(assess.spanned(own, other), np.linalg.norm(fitted, axis=0), atol=1e-12)


def test_score_of_halves_is_the_cosine_of_fits_to_all_cells() -> None:
    """Loadings of all cells have half the error variance of those of half of them."""
    rng, weights = np.random.default_rng(0), np.ones(4000)
    truth, errors = rng.normal(size=(4000, 3)), np.array([0.3, 1.0, 2.0])

    def estimated(share: float) -> np.ndarray:
        return truth + errors / np.sqrt(share) * rng.normal(size=truth.shape)

    got = compared(estimated(1), [estimated(0.5) for _ in range(20)], weights, halves=True)
    full = [cosine(one, other, weights) for one, other in zip(estimated(1).T, estimated(1).T, strict=True)]
    np.testing.assert_allclose(got.score, 1 / (1 + errors**2), atol=0.02)
    np.testing.assert_allclose(got.score, full, atol=0.05)
    np.testing.assert_allclose(got.replication.mean(axis=0), 1 / (1 + 2 * errors**2), atol=0.02)
    plain = compared(estimated(1), [estimated(0.5) for _ in range(20)], weights, halves=False)
    np.testing.assert_allclose(plain.score, plain.replication.mean(axis=0))


def test_what_is_said_of_refits_is_written_out() -> None:
    loadings, weights = drawn(2)
    rng = np.random.default_rng(2)
    noisy = [loadings + rng.normal(0, 0.4, loadings.shape) for _ in range(4)]
    refits = [noisy[0], -noisy[1], noisy[2][:, ::-1], noisy[3] * [1, -1]]
    got = compared(loadings, refits, weights, halves=False)
    for k in range(2):
        between = [cosine(noisy[i][:, k], noisy[i + 1][:, k], weights) for i in (0, 2)]
        np.testing.assert_allclose(got.replication[:, k], between)
        assert got.score[k] == pytest.approx(np.mean(between))
        np.testing.assert_allclose(got.cosine[:, k], [cosine(loadings[:, k], one[:, k], weights) for one in noisy])
    np.testing.assert_allclose(got.consensus, np.mean(noisy, axis=0))
    np.testing.assert_allclose(got.consensus_sd, np.std(noisy, axis=0))
    assert (got.span >= np.abs(got.replication).mean(axis=0) - 1e-9).all()
    assert not got.splits.any()
    assert not got.merges.any()


def test_opposite_matches_have_no_score_below_zero() -> None:
    """Refits that agree with ours and not with each other."""
    weights = np.ones(3)
    own = np.array([[1.0], [-1.0], [0.0]])
    apart = np.array([[1.0], [1.0], [-2.0]])
    got = compared(own, [own + 1.9 * apart, own - 1.9 * apart], weights, halves=True)
    assert got.replication.max() < 0
    assert got.score.tolist() == [0.0]


def orthogonal(n: int) -> np.ndarray:
    """Directions that no weight turns."""
    return np.linalg.qr(np.column_stack([np.ones(50), drawn(n)[0]]))[0][:, 1:]


@pytest.mark.parametrize(("n_mixed", "flagged"), [(4, True), (3, True), (2, False), (0, False)])
def test_factors_that_most_refits_mix(n_mixed: int, flagged: bool) -> None:
    """A half turn of the first two: each is shared by two, and each of those stands for two."""
    basis = orthogonal(4)
    own, mixed = basis[:, :3], basis[:, :3].copy()
    mixed[:, 0], mixed[:, 1] = basis[:, 0] + basis[:, 1], basis[:, 0] - basis[:, 1]
    got = compared(own, [mixed] * n_mixed + [own] * (4 - n_mixed), np.ones(50), halves=True)
    assert got.splits.tolist() == got.merges.tolist() == [flagged, flagged, False]
    np.testing.assert_allclose(got.span, 1, atol=1e-9)


def test_split_factor() -> None:
    """One becomes two, for which a factor that had been there is gone."""
    basis = orthogonal(4)
    own = np.column_stack([basis[:, 0] + basis[:, 1], basis[:, 2], basis[:, 3]])
    refit = basis[:, [0, 1, 2]]
    got = compared(own, [refit] * 4, np.ones(50), halves=True)
    assert got.splits.tolist() == [True, False, False]
    assert not got.merges.any()


def test_merged_factors() -> None:
    """Two become one, and a new one comes up."""
    basis = orthogonal(4)
    refit = np.column_stack([basis[:, 0] + basis[:, 1], basis[:, 2], basis[:, 3]])
    got = compared(basis[:, [0, 1, 2]], [refit] * 4, np.ones(50), halves=True)
    assert got.merges.tolist() == [True, True, False]
    assert not got.splits.any()


@pytest.fixture(scope="module")
def three_of_four() -> ad.AnnData:
    """Four factors for counts that have three, of which the fourth is noise."""
    adata = sc_ldvae.datasets.simulate(600, 150, 3, rng=2)
    tl.ldvae(adata, 4, max_epochs=60, loadings_prior=None, progress=False)
    return adata


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="halves"),
        pytest.param({"rotation": "varimax"}, id="rotated"),
    ],
)
def test_noise_does_not_come_back_from_other_cells(three_of_four: ad.AnnData, options: dict[str, Any]) -> None:
    result = refits(three_of_four, 4, **options)
    score = result["score"]
    real = np.argsort(score)[1:]
    assert score[real].min() > 0.9
    assert score.min() < 0.3
    if not options:
        assert score.argmin() == 3
    assert result["span"][real].min() > 0.9
    assert (result["cosine"][:, real] > 0.85).all()
    own = get.loadings(three_of_four, **options).to_numpy()
    for k in real:
        assert np.corrcoef(own[:, k], result["consensus"][:, k])[0, 1] > 0.9
    assert (result["consensus_sd"] > 0).all()


def refits(data: Any, n_seeds: int = 2, **options: Any) -> dict[str, Any]:
    result = tl.stability(data, n_seeds, copy=True, progress=False, **options)
    return result.uns[options.get("key_added", f"{options.get('key', 'ldvae')}_stability")]


def test_seeds_alone_make_noise_look_stable(three_of_four: ad.AnnData) -> None:
    """The reason why halves are the default."""
    assert refits(three_of_four, 2, subsample=None)["score"].min() > 0.5


@pytest.mark.parametrize(("subsample", "n_pairs"), [("halves", 2), ("bootstrap", 6), (None, 6)])
def test_parts_of_the_result(fitted: ad.AnnData, subsample: str | None, n_pairs: int, tmp_path: Path) -> None:
    adata = fitted.copy()
    assert tl.stability(adata, 4, subsample=subsample, rotation="promax", progress=False) is None
    result = adata.uns[NAME]
    shapes = {
        "score": (3,),
        "replication": (n_pairs, 3),
        "cosine": (4, 3),
        "span": (3,),
        "splits": (3,),
        "merges": (3,),
        "consensus": (60, 3),
        "consensus_sd": (60, 3),
    }
    assert result.keys() == shapes.keys() | {"params", "fit", "checksum"}
    assert {name: np.shape(result[name]) for name in shapes} == shapes
    assert result["splits"].dtype == result["merges"].dtype == bool
    assert result["params"] == {"n_seeds": 4, "subsample": subsample or "", "rotation": "promax"}
    mean = np.clip(result["replication"].mean(axis=0), 0, 1)
    expected = 2 * mean / (1 + mean) if subsample == "halves" else mean
    np.testing.assert_allclose(result["score"], expected)
    adata.write_h5ad(tmp_path / "fit.h5ad")
    adata.write_zarr(tmp_path / "fit.zarr")
    for back in (ad.read_h5ad(tmp_path / "fit.h5ad"), ad.read_zarr(tmp_path / "fit.zarr")):
        for name in shapes:
            np.testing.assert_array_equal(back.uns[NAME][name], result[name])


@pytest.mark.parametrize("subsample", ["halves", "bootstrap", None])
def test_same_seed_same_refits_whatever_the_global_generators_do(
    fitted: ad.AnnData, assert_same: AssertSame, subsample: str | None
) -> None:
    first = refits(fitted, subsample=subsample, rng=3)
    np.random.seed(1)  # noqa: NPY002  the point of the test
    torch.manual_seed(1)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    assert_same(refits(fitted, subsample=subsample, rng=np.random.default_rng(3)), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (refits(fitted, subsample=subsample, rng=4)["score"] != first["score"]).all()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {
                "batch_key": "batch",
                "categorical_covariate_keys": ["sex"],
                "continuous_covariate_keys": ["covariate1"],
                "dispersion": "gene-batch",
            },
            id="covariates",
        ),
        pytest.param({"labels_key": "sex", "dispersion": "gene-label", "gene_likelihood": "zinb"}, id="labels"),
        pytest.param({"size_factor_key": "true_library"}, id="size-factor"),
        pytest.param({"use_observed_lib_size": True, "gene_likelihood": "poisson"}, id="observed-library"),
        pytest.param({"latent_distribution": "ln"}, id="ln"),
        pytest.param({"train_size": 1.0, "n_hidden": 16, "n_layers_encoder": 2}, id="all-cells-deep"),
        pytest.param({"layer": "counts", "mask_var": "chosen", "key_added": "foo"}, id="layer-mask-key"),
    ],
)
def test_refits_are_what_the_fit_was(
    simulated: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], options: dict[str, Any], tmp_path: Path
) -> None:
    """To the cells of the fit with its seed they give its own loadings, also from a file."""
    adata = simulated.copy()
    adata.obs["sex"] = np.random.default_rng(0).choice(["female", "male"], adata.n_obs)
    adata.var["chosen"] = np.arange(60) % 5 > 0
    adata.layers["counts"] = adata.X.copy()
    if "layer" in options:
        adata.X = sparse_ones(adata)
    # The seed's first draws are those of the split, which a column in its place does not make.
    adata.obs["train"] = np.arange(adata.n_obs) % 10 > 0
    fit_quickly(adata, **{"train_size": "train"} | options)
    key = options.get("key_added", "ldvae")
    adata.write_h5ad(tmp_path / "fit.h5ad")
    for data in (adata, ad.read_h5ad(tmp_path / "fit.h5ad")):
        if "train_size" in options:
            got = refits(data, key=key)
            assert np.isfinite(got["score"]).all()
            continue
        got = refits(data, key=key, subsample=None)
        np.testing.assert_allclose(got["cosine"][0], 1, atol=1e-5)
        assert got["cosine"][1].min() < 1 - 1e-4


def sparse_ones(adata: ad.AnnData) -> Any:
    ones = adata.X.copy()
    ones.data[:] = 1
    return ones


def test_projected_cells_are_refitted_all(fitted: ad.AnnData) -> None:
    query = fitted[:80].copy()
    for part in (query.obsm, query.varm, query.uns):
        part.clear()
    tl.project(query, fitted, progress=False)
    for subsample in ("halves", None):
        assert np.isfinite(refits(query, subsample=subsample)["score"]).all()


def test_where_the_result_goes(fitted: ad.AnnData, assert_same: AssertSame, unchanged: Unchanged) -> None:
    with unchanged(fitted):
        expected = refits(fitted)
    adata = fitted.copy()
    tl.stability(adata, 2, key_added="mine", progress=False)
    assert_same(adata.uns.pop("mine"), expected)
    assert_same(adata, fitted)
    data = mudata.MuData({"rna": fitted.copy()})
    tl.stability(data, 2, modality="rna", progress=False)
    assert_same(data.mod["rna"].uns.pop(NAME), expected)
    assert_same(data.mod["rna"], fitted)


def without_counts(adata: ad.AnnData) -> ad.AnnData:
    adata.X = None
    return adata


def few_cells(adata: ad.AnnData) -> ad.AnnData:
    return adata[:7].copy()


def unknown_level(adata: ad.AnnData) -> ad.AnnData:
    adata.obs["batch"] = pd.Categorical(["new"] * adata.n_obs)
    return adata


def rotated(adata: ad.AnnData) -> ad.AnnData:
    tl.rotate(adata, key_added="turned")
    return adata


def as_it_is(adata: ad.AnnData) -> ad.AnnData:
    return adata


@pytest.mark.parametrize(
    ("change", "options", "error", "sentence"),
    [
        pytest.param(as_it_is, {"n_seeds": 3}, ValueError, r"n_seeds is 3, .* Give an even number of at", id="odd"),
        pytest.param(as_it_is, {"n_seeds": 1, "subsample": None}, ValueError, r"n_seeds is 1, but refits", id="one"),
        pytest.param(as_it_is, {"n_seeds": 0}, ValueError, r"n_seeds must be at least 1, but is 0", id="none"),
        pytest.param(as_it_is, {"n_seeds": 2.0}, TypeError, r"n_seeds must be a whole number, but is 2.0", id="float"),
        pytest.param(as_it_is, {"subsample": "thirds"}, ValueError, r"subsample='thirds' is unknown", id="subsample"),
        pytest.param(as_it_is, {"rotation": "oblimin"}, ValueError, r"rotation='oblimin' is unknown", id="rotation"),
        pytest.param(as_it_is, {"key": "other"}, ValueError, r"uns\['other'\] holds no fit", id="no-fit"),
        pytest.param(as_it_is, {"key_added": "a/b"}, ValueError, r"key_added='a/b' can't name", id="slash"),
        pytest.param(as_it_is, {"key_added": "ldvae"}, ValueError, r"would replace the fit", id="over-the-fit"),
        pytest.param(as_it_is, {"layer": "none"}, ValueError, r"layer='none' is not in layers", id="no-layer"),
        pytest.param(as_it_is, {"device": "abacus"}, ValueError, r"device='abacus' can't be used", id="device"),
        pytest.param(without_counts, {}, ValueError, r"X is empty. Name the layer", id="no-counts"),
        pytest.param(few_cells, {}, ValueError, r"data has 7 cells, too few .* needs at least 8", id="few-cells"),
        pytest.param(unknown_level, {}, ValueError, r"level 'new', which the fit has not seen", id="unknown-level"),
        pytest.param(rotated, {"key": "turned"}, ValueError, r"key='turned' is a rotated fit", id="rotated-fit"),
    ],
)
def test_refused(
    fitted: ad.AnnData,
    unchanged: Unchanged,
    change: Callable[[ad.AnnData], ad.AnnData],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
) -> None:
    adata = change(fitted.copy())
    with unchanged(adata), pytest.raises(error, match=sentence):
        tl.stability(adata, **{"n_seeds": 2} | options, progress=False)


def test_a_rotation_between_modalities_is_refused_before_anything_is_fitted(
    fitted: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sc_ldvae.fit.refits", lambda *_: pytest.fail("fitted before"))
    with pytest.raises(ValueError, match=r"^rotation='modality' needs a joint fit"):
        tl.stability(fitted.copy(), 2, rotation="modality", progress=False)


def test_shares_of_one_are_not_rotated(
    simulated: ad.AnnData, fit_quickly: Callable[..., ad.AnnData], unchanged: Unchanged
) -> None:
    adata = fit_quickly(simulated, latent_distribution="ln", copy=True)
    with unchanged(adata), pytest.raises(ValueError, match=r"rotation='varimax': .* factors are shares of one"):
        tl.stability(adata, 2, rotation="varimax", progress=False)
