"""Differential expression in closed form, against all pairs of draws from the stored posterior, decoded in NumPy."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse
from scipy.special import expit, log_softmax, softmax

import sc_ldvae
from sc_ldvae import get, tl

if TYPE_CHECKING:
    from collections.abc import Callable

DELTA = 0.25
# So many draws of each side: probabilities are known to about 0.004.
N_DRAWS = 20_000
LEAST = 1e-4
# Of the same numbers computed in another way, in another order or among others; most columns are in single precision.
ROUNDING = {"rtol": 1e-6, "atol": 1e-9}
NAIVE, B_CELLS, NK_CELLS = "CD4+/CD45RA+/CD25- Naive T", "CD19+ B", "CD56+ NK"


@pytest.fixture(scope="module")
def fit_of() -> Callable[[str, int], AnnData]:
    """A fit with two batches and a covariate, whose cells lie in groups that differ and in groups of few cells."""
    fits: dict[tuple[str, int], AnnData] = {}

    def fit(distribution: str, n_latent: int) -> AnnData:
        if (distribution, n_latent) not in fits:
            adata = sc_ldvae.datasets.simulate(300, 60, max(n_latent, 2), n_batches=2, n_continuous=1, rng=0)
            order = np.argsort(adata.obsm["true_latent"][:, 0])
            adata.obs["group"] = np.array(["low", "middle", "high"])[np.argsort(order) // 100]
            adata.obs["few"] = pd.Categorical(["two"] * 2 + ["three"] * 3 + ["many"] * 295)
            tl.ldvae(
                adata,
                n_latent,
                latent_distribution=distribution,
                batch_key="batch",
                continuous_covariate_keys=["covariate1"],
                max_epochs=30,
                rng=0,
                progress=False,
            )
            fits[distribution, n_latent] = adata
        return fits[distribution, n_latent]

    return fit


@pytest.fixture(scope="module")
def grouped(fit_of: Callable[..., AnnData]) -> AnnData:
    """Shared: change a copy."""
    return fit_of("normal", 3)


@pytest.fixture(scope="module", params=["normal", "ln"])
def blood(request: pytest.FixtureRequest, pbmc_counts: AnnData) -> AnnData:
    adata = pbmc_counts.copy()
    tl.ldvae(adata, 10, latent_distribution=request.param, max_epochs=60, rng=0, progress=False)
    return adata


def compared(adata: AnnData, groupby: str, group: str | None = None, **options: Any) -> pd.DataFrame:
    """All columns; of one group by gene, in the order of the fit."""
    chosen = {} if group is None else {"groups": [group]}
    result = tl.differential_expression(adata, groupby, copy=True, progress=False, **chosen | options)
    frame = get.differential_expression(result, group)
    return frame if group is None else frame.loc[list(adata.uns["ldvae"]["genes"])]


def design(adata: AnnData, batch: str | None) -> np.ndarray:
    table = adata.uns["ldvae"].get("covariates", {"key": ()})
    columns = [np.zeros((adata.n_obs, 0))]
    for i, key in enumerate(table["key"]):
        values = adata.obs[key].to_numpy()
        if key == "batch" and batch is not None:
            values = np.full(adata.n_obs, batch)
        if table["level"][i]:
            columns.append(values.astype(str)[:, None] == table["level"][i])
        else:
            columns.append((values[:, None] - table["mean"][i]) / table["sd"][i])
    return np.hstack(columns).astype(np.float64)


def drawn_proportions(cells: AnnData, batch: str | None, rng: np.random.Generator) -> np.ndarray:
    """Of cells that are drawn anew each time, N_DRAWS x genes."""
    decoder: dict[str, Any] = cells.uns["ldvae"]["decoder"]
    # Each cell equally often, or nearly.
    who = rng.permuted(np.resize(np.arange(cells.n_obs), N_DRAWS))
    latent = cells.obsm["X_ldvae"].astype(np.float64)[who]
    noise = rng.standard_normal(latent.shape) * np.sqrt(cells.obsm["X_ldvae_variance"][who])
    composition = cells.uns["ldvae"]["params"]["latent_distribution"] == "ln"
    z = softmax(np.log(latent) + noise, axis=1) if composition else latent + noise
    eta = z @ decoder["loadings"].astype(np.float64).T + decoder["intercept"]
    if "covariate_effects" in decoder:
        eta += (design(cells, batch) @ decoder["covariate_effects"].T)[who]
    return np.exp(log_softmax(eta, axis=1))


def share_above(a: np.ndarray, b: np.ndarray, by: float) -> np.ndarray:
    """Share of all pairs of rows of a and b, both sorted, in which a is above b by so much, for each column."""
    return np.array([np.searchsorted(y, x - by).mean() / len(b) for x, y in zip(a.T, b.T, strict=True)])


def brute_force(drawn: list[tuple[np.ndarray, ...]], pseudocount: float) -> pd.DataFrame:
    """The mean over the batches of the comparison of all pairs of draws."""
    parts = []
    for rho, rho_reference in drawn:
        y, y_reference = (np.sort(np.log2(side + pseudocount), axis=0) for side in (rho, rho_reference))
        mean = y.mean(0) - y_reference.mean(0)
        part = {
            "up": share_above(y, y_reference, DELTA),
            "down": share_above(y_reference, y, DELTA),
            "greater": share_above(y, y_reference, 0),
            "mean": mean,
            "square": y.var(0) + y_reference.var(0) + mean**2,
            "proportion": rho.mean(0),
            "proportion_reference": rho_reference.mean(0),
        }
        parts.append(pd.DataFrame(part))
    together = sum(parts[1:], parts[0]) / len(parts)
    return together.assign(sd=np.sqrt(together["square"] - together["mean"] ** 2))


def probability_of(log_odds: pd.Series) -> np.ndarray:
    """Undoes the logarithm of odds that are kept finite."""
    return expit(log_odds.to_numpy(dtype=np.float64)) * (1 + 2 * LEAST) - LEAST


def assert_as_drawn(
    adata: AnnData,
    groupby: str,
    group: str,
    reference: str = "rest",
    *,
    within: float,
    batches: tuple[str, ...] = (),
    every: int = 1,
) -> None:
    """In both modes, of every so manyth gene; probabilities differ by less than `within`."""
    rng, column = np.random.default_rng(0), adata.obs[groupby].to_numpy()
    sides = (column == group, column != group if reference == "rest" else column == reference)
    drawn = [
        tuple(drawn_proportions(adata[cells], batch, rng)[:, ::every] for cells in sides)
        for batch in batches or (None,)
    ]
    # A tenth of a count in a cell of median library; next to nothing where only the order counts.
    for mode, pseudocount in (("change", 0.1 / np.median(adata.obs["ldvae_library"])), ("vanilla", 1e-9)):
        expected = brute_force(drawn, pseudocount)
        frame = compared(adata, groupby, group, reference=reference, mode=mode, batch_correction=bool(batches))
        result, up, down = frame[::every], expected["up"], expected["down"]
        if mode == "vanilla":
            up, down = expected["greater"], 1 - expected["greater"]
        assert np.ptp(up - down) > 0.3
        np.testing.assert_allclose(result["proba_de"], np.maximum(up, down), rtol=0, atol=within)
        np.testing.assert_allclose(probability_of(result["scores"]), (1 + up - down) / 2, rtol=0, atol=within)
        gap = (result["logfoldchanges"].to_numpy() - expected["mean"]) / expected["sd"]
        assert np.abs(gap).max() < 0.03
        np.testing.assert_allclose(result["lfc_sd"], expected["sd"], rtol=0.1)
        for side in ("proportion", "proportion_reference"):
            ratio = result[side].to_numpy() / expected[side]
            np.testing.assert_allclose(ratio, 1, rtol=0, atol=0.04)
            assert abs(np.median(ratio) - 1) < 0.01


@pytest.mark.parametrize(
    ("reference", "batches"),
    [
        pytest.param("rest", (), id="rest"),
        pytest.param("low", (), id="reference"),
        pytest.param("rest", ("batch0", "batch1"), id="rest-batch-corrected"),
    ],
)
@pytest.mark.parametrize(
    ("distribution", "n_latent"),
    [
        pytest.param("normal", 1, id="normal-1"),
        pytest.param("normal", 3, id="normal-3"),
        pytest.param("normal", 10, id="normal-10"),
        pytest.param("ln", 3, id="ln-3"),
        pytest.param("ln", 10, id="ln-10"),
    ],
)
def test_all_pairs_of_posterior_draws(
    distribution: str, n_latent: int, reference: str, batches: tuple[str, ...], fit_of: Callable[..., AnnData]
) -> None:
    assert_as_drawn(fit_of(distribution, n_latent), "group", "high", reference, batches=batches, within=0.015)


@pytest.mark.parametrize(
    ("group", "reference", "within"),
    [
        # Three points stand for each cell's posterior: seen if there are few cells on both sides.
        pytest.param("two", "three", 0.08, id="two-cells-and-three"),
        pytest.param("three", "rest", 0.03, id="three-cells-and-rest"),
        pytest.param("many", "two", 0.03, id="many-cells-and-two"),
    ],
)
@pytest.mark.parametrize("distribution", ["normal", "ln"])
def test_groups_of_few_cells(
    distribution: str, group: str, reference: str, within: float, fit_of: Callable[..., AnnData]
) -> None:
    assert_as_drawn(fit_of(distribution, 3), "few", group, reference, within=within)


def test_batch_correction_takes_the_batch_out(grouped: AnnData) -> None:
    own = compared(grouped, "batch", "batch0")
    corrected = compared(grouped, "batch", "batch0", batch_correction=True)
    assert np.abs(corrected["logfoldchanges"]).mean() < 0.5 * np.abs(own["logfoldchanges"]).mean()
    parts = []
    for batch in ("batch0", "batch1"):
        one = grouped.copy()
        one.obs["group"], one.obs["batch"] = one.obs["batch"].astype(str), batch
        parts.append(compared(one, "group", "batch0"))
    for column in ("logfoldchanges", "proportion", "proportion_reference"):
        expected = (parts[0][column] + parts[1][column]) / 2
        np.testing.assert_allclose(corrected[column], expected, rtol=1e-4, atol=1e-6)
    squares = [part["lfc_sd"] ** 2 + part["logfoldchanges"] ** 2 for part in parts]
    expected = np.sqrt((squares[0] + squares[1]) / 2 - corrected["logfoldchanges"] ** 2)
    np.testing.assert_allclose(corrected["lfc_sd"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("group", "reference", "within"),
    [
        pytest.param(B_CELLS, "rest", 0.015, id="rest"),
        pytest.param("CD34+", "CD14+ Monocyte", 0.03, id="reference"),
        pytest.param(NAIVE, "CD34+", 0.08, id="eight-cells-and-thirteen"),
    ],
)
def test_real_cells(group: str, reference: str, within: float, blood: AnnData) -> None:
    assert_as_drawn(blood, "bulk_labels", group, reference, within=within, every=7)


def test_real_cells_show_their_markers(blood: AnnData) -> None:
    frame = compared(blood, "bulk_labels", fdr=0.1)
    b_cells, nk_cells = frame.loc[B_CELLS], frame.loc[NK_CELLS]
    assert b_cells.index.get_loc("CD79A") < 10
    assert b_cells.loc["CD79A", "is_de"]
    assert len({"GNLY", "NKG7", "GZMB", "PRF1"} & set(nk_cells.index[:20])) >= 2
    assert (nk_cells.loc[["NKG7", "GZMB"], "logfoldchanges"] > 1).all()
    assert "CD79A" not in nk_cells.index[:100]


@pytest.mark.parametrize("mode", ["change", "vanilla"])
def test_same_result_twice_and_for_any_number_of_threads(mode: str, blood: AnnData) -> None:
    before, frames = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 2, 1):
            torch.set_num_threads(n_threads)
            frames.append(compared(blood, "bulk_labels", mode=mode))
    finally:
        torch.set_num_threads(before)
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0], check_exact=True)


@pytest.mark.parametrize("batch_correction", [False, True], ids=["own-batch", "batch-corrected"])
def test_order_of_the_cells_is_no_matter(batch_correction: bool, grouped: AnnData) -> None:
    shuffled = grouped[np.random.default_rng(1).permutation(grouped.n_obs)]
    for group in ("low", "high"):
        frames = [compared(adata, "group", group, batch_correction=batch_correction) for adata in (grouped, shuffled)]
        pd.testing.assert_frame_equal(*frames, **ROUNDING)


def test_order_of_the_genes_is_no_matter(grouped: AnnData) -> None:
    shuffled = grouped[:, np.random.default_rng(1).permutation(grouped.n_vars)]
    pd.testing.assert_frame_equal(compared(shuffled, "group"), compared(grouped, "group"), check_exact=True)


@pytest.mark.parametrize("reference", ["rest", "low"])
@pytest.mark.parametrize(
    "groups",
    [
        pytest.param(["high"], id="one"),
        pytest.param(["middle", "high"], id="two"),
        pytest.param(("high", "middle"), id="tuple"),
        pytest.param(np.array(["high"]), id="array"),
    ],
)
def test_chosen_groups_as_among_all(groups: Any, reference: str, grouped: AnnData) -> None:
    everything = compared(grouped, "group", reference=reference)
    frame = compared(grouped, "group", groups=groups, reference=reference)
    assert list(frame.index.unique("group")) == list(groups)
    for group in groups:
        pd.testing.assert_frame_equal(frame.loc[group], everything.loc[group], **ROUNDING)


@pytest.mark.parametrize("mode", ["change", "vanilla"])
def test_reversed_comparison_is_the_negative(mode: str, grouped: AnnData) -> None:
    there = compared(grouped, "group", "high", reference="low", mode=mode)
    back = compared(grouped, "group", "low", reference="high", mode=mode)
    np.testing.assert_allclose(there["logfoldchanges"], -back["logfoldchanges"], **ROUNDING)
    np.testing.assert_allclose(there["lfc_sd"], back["lfc_sd"], **ROUNDING)
    np.testing.assert_allclose(there["proportion"], back["proportion_reference"], **ROUNDING)
    np.testing.assert_allclose(there["proportion_reference"], back["proportion"], **ROUNDING)
    np.testing.assert_allclose(there["scores"], -back["scores"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(there["pvals"], back["pvals"], rtol=1e-9, atol=1e-12)
    assert np.ptp(there["logfoldchanges"]) > 0.5


def test_rest_of_two_groups_is_the_other_group(grouped: AnnData) -> None:
    adata = grouped[grouped.obs["group"] != "middle"]
    for group, other in (("low", "high"), ("high", "low")):
        pd.testing.assert_frame_equal(
            compared(adata, "group", group), compared(adata, "group", group, reference=other), **ROUNDING
        )


def test_rest_of_three_groups_is_the_mean_of_the_others(grouped: AnnData) -> None:
    # The others are of one size.
    rest = compared(grouped, "group", "high")
    others = [compared(grouped, "group", "high", reference=other) for other in ("low", "middle")]
    for column in ("logfoldchanges", "proportion_reference"):
        np.testing.assert_allclose(rest[column], (others[0][column] + others[1][column]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fdr", [0.001, 0.3])
@pytest.mark.parametrize("mode", ["change", "vanilla"])
def test_columns_follow_from_the_probability(mode: str, fdr: float, grouped: AnnData) -> None:
    frame = compared(grouped, "group", mode=mode, fdr=fdr)
    for group in ("low", "middle", "high"):
        one = frame.loc[group].astype({"proba_de": np.float64})
        assert (np.diff(one["scores"]) <= 0).all()
        np.testing.assert_allclose(one["pvals"], 1 - one["proba_de"], atol=1e-7)
        surest = np.sort(one["pvals"])
        expected = dict(zip(surest, np.cumsum(surest) / np.arange(1, len(surest) + 1), strict=True))
        np.testing.assert_allclose(one["pvals_adj"], one["pvals"].map(expected), rtol=1e-9)
        np.testing.assert_array_equal(one["is_de"], one["pvals_adj"] <= fdr)
        odds = (one["proba_de"] + LEAST) / (1 - one["proba_de"] + LEAST)
        np.testing.assert_allclose(one["bayes_factor"], np.log(odds), rtol=1e-4, atol=1e-5)
        if mode == "vanilla":
            np.testing.assert_allclose(np.abs(one["scores"]), one["bayes_factor"], rtol=1e-4, atol=1e-5)
            assert (one["proba_de"] >= 0.5).all()
    assert frame["is_de"].any() == (fdr == 0.3)
    assert not frame["is_de"].all()


def test_larger_changes_are_less_probable(grouped: AnnData) -> None:
    probabilities = [compared(grouped, "group", "high", delta=delta)["proba_de"] for delta in (0.01, 0.25, 1, 4, 40)]
    assert all((a >= b).all() for a, b in pairwise(probabilities))
    assert probabilities[0].max() > 0.9
    assert (probabilities[-1] == 0).all()


def test_pseudocount_is_a_tenth_of_a_count_and_damps(grouped: AnnData) -> None:
    tenth = 0.1 / float(np.median(grouped.obs["ldvae_library"]))
    default = compared(grouped, "group", "high")
    pd.testing.assert_frame_equal(compared(grouped, "group", "high", pseudocount=tenth), default, **ROUNDING)
    damped = compared(grouped, "group", "high", pseudocount=100 * tenth)
    assert (np.abs(damped["logfoldchanges"]) < np.abs(default["logfoldchanges"])).mean() > 0.9
    np.testing.assert_allclose(damped["proportion"], default["proportion"], rtol=1e-6)


def test_genes_that_differ_are_called_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0, 0.5, 100)
    a[10:20] = a[:10] + np.log(4)
    # These change places, so that the sum stays the same and no other gene differs.
    b = a[[*range(10, 20), *range(10), *range(20, 100)]]
    rho = softmax(np.repeat([a, b], 300, axis=0), axis=1)
    adata = AnnData(sparse.csr_matrix(rng.poisson(3000 * rho).astype(np.float32)))
    adata.obs["kind"] = np.repeat(["a", "b"], 300)
    change = np.repeat([2.0, -2.0, 0.0], [10, 10, 80])
    tl.ldvae(adata, 2, rng=0, progress=False)
    # Less than the share that one gene more would make among the twenty.
    frame = compared(adata, "kind", "b", delta=1.0, fdr=0.01)
    np.testing.assert_array_equal(frame["is_de"], change != 0)
    assert (frame["scores"][change > 0].min(), -frame["scores"][change < 0].max()) > (2, 2)
    np.testing.assert_allclose(frame["logfoldchanges"], change, atol=0.3)
    assert (frame["proba_de"][change == 0] < 0.1).all()


def test_probability_is_the_share_of_pairs_that_truly_differ() -> None:
    adata = sc_ldvae.datasets.simulate(1000, 100, 2, rng=1)
    adata.obs["side"] = np.where(adata.obsm["true_latent"][:, 0] > 0, "up", "down")
    eta = adata.obsm["true_latent"] @ adata.varm["true_loadings"].T + adata.var["true_intercept"].to_numpy()
    truth = log_softmax(eta, axis=1) / np.log(2)
    tl.ldvae(adata, 2, rng=0, progress=False)
    frame = compared(adata, "side", "up", pseudocount=1e-9)
    up, down = (np.sort(truth[adata.obs["side"] == side], axis=0) for side in ("up", "down"))
    differ = np.maximum(share_above(up, down, DELTA), share_above(down, up, DELTA))
    # How close a fit comes to the truth depends on the versions of what it computes with: 0.05 to 0.06.
    assert np.abs(frame["proba_de"] - differ).mean() < 0.08
    for low, high in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        near = frame["proba_de"].between(low, high).to_numpy()
        assert near.sum() >= 5
        assert abs(frame["proba_de"][near].mean() - differ[near].mean()) < 0.08
    greater = compared(adata, "side", "up", mode="vanilla")["scores"]
    assert np.abs(probability_of(greater) - share_above(up, down, 0)).mean() < 0.06


def test_global_random_state_is_untouched(grouped: AnnData) -> None:
    def state() -> list[Any]:
        # The state that must not change.
        numpys = np.random.get_state()  # noqa: NPY002
        return [random.getstate(), numpys[1].tolist(), torch.get_rng_state().tolist()]

    before = state()
    compared(grouped, "group")
    compared(grouped, "group", mode="vanilla", batch_correction=True)
    assert state() == before
