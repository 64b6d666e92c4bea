"""What runs away is no result: it is trained again at a lower rate, then refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse, stats

import sc_ldvae
from sc_ldvae._options import Schedule
from sc_ldvae.counts import Cells, InMemory
from sc_ldvae.fit import Course, History, _fit, _verdict
from sc_ldvae.fit._verdict import check_result
from sc_ldvae.nn import LDVAE

if TYPE_CHECKING:
    from anndata import AnnData

QUICK: dict[str, Any] = {"max_epochs": 2, "n_hidden": 8, "progress": False}


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return sc_ldvae.datasets.simulate(80, 20, 2, n_batches=2, rng=0)


def judged(counts: AnnData, elbo: float, held_out_elbo: float, n_epochs: int = 200) -> None:
    model, cells = LDVAE(counts.n_vars, n_latent=2, n_hidden=8), Cells(InMemory(counts.X))
    model.set_library_prior(torch.from_numpy(cells.source.totals).float())
    epochs = list(range(1, n_epochs + 1))
    history = History(epochs, [elbo] * n_epochs, [held_out_elbo] * n_epochs)
    check_result(model, cells, np.arange(counts.n_obs) >= 60, history, Schedule())


@pytest.mark.parametrize(
    ("elbos", "what"),
    [
        pytest.param((-100.0, -250.0), r"^The held-out ELBO ended at -250 .*far below the -\d+", id="held-out"),
        pytest.param((-250.0, -100.0), r"^The ELBO ended at -250 .*far below the -\d+", id="training"),
        pytest.param((-100.0, 30.0), "^The held-out ELBO ended at 30 .*more probable than certain", id="certain"),
    ],
)
def test_ends_below_the_null_or_above_certainty_are_refused(
    elbos: tuple[float, float], what: str, counts: AnnData
) -> None:
    judged(counts, -100.0, -100.0)
    with pytest.raises(FloatingPointError, match=what):
        judged(counts, *elbos)


def test_few_steps_may_end_far_below_the_null(counts: AnnData) -> None:
    judged(counts, -250.0, -2e5, n_epochs=3)
    with pytest.raises(FloatingPointError, match=r"^The ELBO ended at -10000 "):
        judged(counts, -1e4, -100.0, n_epochs=3)


@pytest.mark.parametrize("likelihood", ["nb", "poisson"])
def test_null_is_that_of_the_mean_proportions(likelihood: str, counts: AnnData) -> None:
    x, training = counts.X.toarray().astype(float), np.arange(60)
    totals = x[training].sum(0) + 0.5
    mean = x.sum(1, keepdims=True) * totals / totals.sum()
    if likelihood == "nb":
        start = sc_ldvae.likelihoods.log_theta_by_moments(sparse.csr_matrix(x[training]), x[training].sum(1))
        theta = np.exp(start)
        expected = stats.nbinom.logpmf(x, theta, theta / (theta + mean))
    else:
        expected = stats.poisson.logpmf(x, mean)
    model = LDVAE(counts.n_vars, n_latent=2, n_hidden=8, gene_likelihood=likelihood)
    others = np.arange(60, 80)
    got = _verdict._null(model, Cells(InMemory(counts.X)), training)(others)
    assert got == pytest.approx(expected[others].sum(1).mean(), rel=1e-5)


def test_parameters_that_are_not_finite_are_refused(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the last step has made is looked at, too."""

    def run(self: Course, model: LDVAE, *_: object) -> str:
        with torch.no_grad():
            model.decoder.weight[3, 1] = torch.nan
        self.history = History([1], [-100.0], [-100.0], [1.0], [0.1])
        return "done"

    monkeypatch.setattr(Course, "run", run)
    with pytest.raises(FloatingPointError, match="parameters that are not finite"):
        sc_ldvae.tl.ldvae(counts.copy(), 2, **QUICK)


@pytest.mark.parametrize("score", [np.inf, np.nan, -np.inf])
def test_no_held_out_elbo_that_is_not_finite_is_the_best(
    score: float, counts: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sc_ldvae.fit._course.mean_elbo", lambda *_: score)
    adata = counts.copy()
    with pytest.raises(FloatingPointError, match=f"The held-out ELBO became {score} in epoch 1"):
        sc_ldvae.tl.ldvae(adata, 2, **QUICK)
    assert not adata.obsm.keys() - counts.obsm.keys()


def test_a_fit_that_diverges_steps_back_once_and_says_so(counts: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = counts.copy()
    with caplog.at_level(logging.WARNING, "sc_ldvae"):
        sc_ldvae.tl.ldvae(adata, 2, lr=0.3, max_epochs=2, n_hidden=8, progress=False)
        assert not caplog.messages
        adata = counts.copy()
        sc_ldvae.tl.ldvae(adata, 2, lr=20, max_epochs=4, n_hidden=8, progress=False, batch_size=16)
    (message,) = caplog.messages
    assert message.endswith("Trained again with lr=2 instead of 20.")
    assert max(adata.uns["ldvae"]["history"]["lr"]) <= 2
    assert np.isfinite(adata.obsm["X_ldvae"]).all()


def test_refits_step_back_as_well(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    adata, rates = counts.copy(), []
    sc_ldvae.tl.ldvae(adata, 2, **QUICK)

    def check(*arguments: Any) -> None:
        rates.append(arguments[-1].lr)
        if len(rates) % 2:
            msg = "Diverged."
            raise FloatingPointError(msg)

    monkeypatch.setattr(_fit, "check_result", check)
    sc_ldvae.tl.stability(adata, 2, progress=False)
    assert rates == pytest.approx([0.06, 0.006] * 2)


def test_millions_of_counts_that_poisson_can_not_follow_are_refused(counts: AnnData) -> None:
    adata = counts.copy()
    x = adata.X.toarray()
    x[7] *= int(3e7 / x[7].sum())
    adata.X = x
    with pytest.raises(FloatingPointError, match=r"^The .*ELBO .*remove cells whose totals are far from all others"):
        sc_ldvae.tl.ldvae(adata, 2, gene_likelihood="poisson", n_hidden=8, max_epochs=40, progress=False)
    assert not adata.uns.keys() - counts.uns.keys()


def test_counts_of_means_beyond_integers_are_refused(counts: AnnData) -> None:
    adata = counts.copy()
    sc_ldvae.tl.ldvae(adata, 2, **QUICK)
    adata.obs["ldvae_library"] = np.float32(1e30)
    with pytest.raises(FloatingPointError, match=r"^Counts can't be drawn from means up to "):
        sc_ldvae.tl.posterior_predictive(adata, progress=False)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
@pytest.mark.filterwarnings("error")
def test_a_cell_of_very_many_counts_overflows_no_dispersion(likelihood: str) -> None:
    adata = sc_ldvae.datasets.simulate(120, 20, 2, rng=0)
    x = adata.X.toarray()
    x[17] *= 500
    adata.X = x
    sc_ldvae.tl.ldvae(
        adata, 2, gene_likelihood=likelihood, dispersion="gene-cell", n_hidden=8, max_epochs=30, progress=False
    )
    assert np.isfinite(adata.uns["ldvae"]["total_explained_deviance"])
    assert np.isfinite(sc_ldvae.tl.elbo(adata, progress=False)).all()
