from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse, stats

import sc_ldvae
from sc_ldvae.counts import Cells, Counts
from sc_ldvae.fit._deviance import Decoded, explained_deviance
from sc_ldvae.fit._engine import Autograd, engine_of
from sc_ldvae.fit._loop import History, Schedule, default_max_epochs, evaluate, train
from sc_ldvae.fit._start import log_theta_by_moments, start_from_data, truncated_svd
from sc_ldvae.nn import LDVAE
from sc_ldvae.record import AffineMap, Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return sc_ldvae.datasets.simulate(130, 40, 3, mean_library=500, rng=0)


def prepare(counts: AnnData, n_training: int = 100) -> tuple[LDVAE, Cells, torch.Tensor, torch.Tensor]:
    model = LDVAE(counts.n_vars, n_latent=3, n_hidden=16, generator=torch.Generator().manual_seed(0))
    cells = Cells(Counts.from_csr(counts.X))
    model.set_library_prior(cells.counts.totals)
    everyone = torch.arange(counts.n_obs)
    return model, cells, everyone[:n_training], everyone[n_training:]


def run(
    counts: AnnData, n_training: int = 100, *, autograd: bool = False, **schedule: Any
) -> tuple[LDVAE, History, str]:
    model, cells, training, held_out = prepare(counts, n_training)
    generator = torch.Generator().manual_seed(1)
    arguments = model, cells, 1 / n_training
    with nullcontext(Autograd(*arguments)) if autograd else engine_of(*arguments) as engine:
        history, reason = train(model, engine, training, held_out, Schedule(**schedule, progress=False), generator)
    return model, history, reason


def held_out_elbo(model: LDVAE, cells: Cells, held_out: torch.Tensor) -> float:
    with engine_of(model, cells, 0) as engine:
        return evaluate(model, engine, held_out)


def test_both_engines_train_the_same_model(counts: AnnData) -> None:
    (fused, history, _), (plain, expected, _) = (
        run(counts, max_epochs=4, batch_size=32, autograd=autograd) for autograd in (False, True)
    )
    np.testing.assert_allclose(history.elbo, expected.elbo, rtol=1e-4)
    # Looser: with autograd, rounding moves the biases that BatchNorm cancels, and its running means lag behind.
    np.testing.assert_allclose(history.elbo_held_out, expected.elbo_held_out, rtol=1e-2)
    np.testing.assert_allclose(fused.get_loadings(), plain.get_loadings(), rtol=0.02, atol=0.02)


def recorded(monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]) -> None:
    original = LDVAE.forward

    def forward(self: LDVAE, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        terms = original(self, x, *args, **kwargs)
        record(self, x, terms)
        return terms

    monkeypatch.setattr(LDVAE, "forward", forward)


@pytest.mark.parametrize(("n_training", "batch_size"), [(97, 32), (65, 64), (3, 2), (2, 1), (100, 1000)])
def test_training_never_sees_one_cell_alone(
    monkeypatch: pytest.MonkeyPatch, counts: AnnData, n_training: int, batch_size: int
) -> None:
    sizes: list[int] = []
    recorded(monkeypatch, lambda model, x, _: sizes.append(len(x)) if model.training else None)
    run(counts, n_training, autograd=True, max_epochs=2, batch_size=batch_size)
    assert min(sizes) > 1
    assert sum(sizes) == 2 * n_training


def test_kl_weight_rises_in_steps_and_is_1_well_before_the_end(counts: AnnData) -> None:
    for n_training, max_epochs in ((100, 10), (16, 20), (100, 100)):
        _, history, _ = run(counts, n_training, max_epochs=max_epochs, batch_size=16, early_stopping=False)
        weights = np.array(history.kl_weight)
        assert weights[0] <= 1
        assert (np.diff(weights) >= 0).all()
        assert (weights[round(0.4 * max_epochs) :] == 1).all()


def test_kl_weight_scales_the_latents_divergence_in_the_loss(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[float] = []
    original = sc_ldvae.nn.Elbo.per_cell

    def per_cell(self: Any, kl_weight: float = 1.0) -> torch.Tensor:
        weights.append(kl_weight)
        return original(self, kl_weight)

    monkeypatch.setattr(sc_ldvae.nn.Elbo, "per_cell", per_cell)
    run(counts, autograd=True, max_epochs=10, batch_size=10)
    assert weights[0] == 0
    # Each step asks twice: for the loss, and at weight 1 for the history.
    assert any(0 < weight < 1 for weight in weights)


def test_the_best_state_is_kept(counts: AnnData) -> None:
    # A learning rate that overshoots makes the held-out ELBO go up and down.
    model, history, _ = run(counts, max_epochs=12, lr=0.5, early_stopping=False)
    _, cells, _, held_out = prepare(counts)
    best = max(history.elbo_held_out)
    assert history.elbo_held_out[-1] < best
    assert held_out_elbo(model, cells, held_out) == pytest.approx(best, rel=1e-6)
    assert not model.training


def test_early_stopping_stops_and_says_so(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([-10.0, -9.0, *[-11.0] * 100])
    monkeypatch.setattr("sc_ldvae.fit._loop.evaluate", lambda *_: next(scores))
    _, history, reason = run(counts, max_epochs=50, batch_size=100)
    assert len(history.epoch) == 22
    assert history.best_epoch() == 1
    assert reason == "held-out ELBO best in epoch 2, not improved for 20 epochs"


def test_without_early_stopping_it_runs_to_the_end(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter(range(0, -100, -1))
    monkeypatch.setattr("sc_ldvae.fit._loop.evaluate", lambda *_: float(next(scores)))
    _, history, reason = run(counts, max_epochs=20, batch_size=100, early_stopping=False)
    assert len(history.epoch) == 20
    assert reason == "max_epochs=20 reached"


def test_without_held_out_cells_the_last_state_is_kept(counts: AnnData) -> None:
    _, history, reason = run(counts, n_training=counts.n_obs, max_epochs=3)
    assert history.elbo_held_out == []
    assert history.best_epoch() == 2
    assert reason == "max_epochs=3 reached"


def test_divergence_is_an_error_not_a_result(counts: AnnData) -> None:
    adata = counts.copy()
    with pytest.raises(FloatingPointError, match="Try a smaller lr"):
        sc_ldvae.tl.ldvae(adata, 3, lr=1e30, max_epochs=5, progress=False)
    assert not adata.uns


def test_default_epochs_come_to_350_steps_and_grow_with_the_square_root_of_many_cells() -> None:
    steps = {n: default_max_epochs(n, 128) * round(n / 128) for n in (1280, 2560, 25_600, 4 * 25_600)}
    assert steps[1280] == pytest.approx(350, rel=0.05)
    assert steps[2560] == pytest.approx(350, rel=0.05)
    assert steps[25_600] == pytest.approx(960, rel=0.1)
    assert steps[4 * 25_600] == pytest.approx(1920, rel=0.2)
    assert default_max_epochs(10**7, 128) == 2


def test_start_is_better_than_a_random_one_before_any_step(counts: AnnData) -> None:
    model, cells, training, held_out = prepare(counts)
    random = held_out_elbo(model, cells, held_out)
    start_from_data(model, counts.X[training.numpy()])
    # One pass to fill the running statistics of the encoder's BatchNorm.
    model.train()
    for _ in range(50):
        model(**cells.minibatch(training), generator=torch.Generator().manual_seed(0))
    assert held_out_elbo(model, cells, held_out) > random


def test_svd_is_that_of_the_dense_centred_matrix(counts: AnnData) -> None:
    library = np.asarray(counts.X.sum(1), dtype=np.float64).ravel()
    svd = truncated_svd(counts.X.astype(np.float64), library, 3)
    dense = np.log1p(counts.X.toarray() / library[:, None] * np.median(library))
    dense -= dense.mean(0)
    left, values, right = np.linalg.svd(dense, full_matrices=False)
    approximation = svd.scores @ (svd.directions * values[:3] / np.sqrt(counts.n_obs)).T
    np.testing.assert_allclose(approximation, (left[:, :3] * values[:3]) @ right[:3], atol=1e-5)
    np.testing.assert_allclose(svd.scores.std(0), 1, rtol=1e-5)
    np.testing.assert_allclose(svd.effects.mean(0), 0, atol=1e-10)


def test_theta_by_moments_is_the_theta_that_was_simulated() -> None:
    rng = np.random.default_rng(0)
    theta, library = np.array([0.5, 2.0, 20.0]), rng.lognormal(0, 0.3, 100_000)
    mean = library[:, None] * np.array([3.0, 8.0, 5.0])
    x = sparse.csr_matrix(rng.poisson(rng.gamma(theta, mean / theta)))
    np.testing.assert_allclose(np.exp(log_theta_by_moments(x, library)), theta, rtol=0.1)


def toy_decoder(loadings: np.ndarray, log_theta: np.ndarray | None) -> Decoder:
    n_vars = len(loadings)
    mean = AffineMap(loadings, np.log(np.full(n_vars, 1 / n_vars)), np.zeros((n_vars, 0)))
    return Decoder(mean, log_theta, None)


def deviance(x: np.ndarray, mean: np.ndarray, theta: float | None) -> float:
    """Twice the log-likelihood that `mean` falls short of ``mean = x``."""

    def log_likelihood(m: np.ndarray) -> float:
        if theta is None:
            return stats.poisson.logpmf(x, m).sum()
        return stats.nbinom.logpmf(x, theta, theta / (theta + m)).sum()

    return 2 * (log_likelihood(np.maximum(x, 1e-12)) - log_likelihood(mean))


@pytest.mark.parametrize("log_theta", [pytest.param(np.full((1, 30), 2.0), id="nb"), pytest.param(None, id="poisson")])
def test_explained_deviance_of_known_factors(log_theta: np.ndarray | None) -> None:
    """A strong, a weak and an absent factor; more cells than one chunk."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(0, [0.8, 0.3, 0.0], (30, 3))
    latent, library = rng.normal(size=(600, 3)), np.full(600, 400.0)
    decoder = toy_decoder(loadings, log_theta)
    eta = latent @ loadings.T
    mean = 400 * np.exp(eta) / np.exp(eta).sum(1, keepdims=True)
    theta = 1e9 if log_theta is None else np.exp(2.0)
    x = sparse.csr_matrix(rng.poisson(rng.gamma(theta, mean / theta)))
    cells = Decoded(x, latent, np.zeros((600, 0)), library, np.zeros(600, dtype=int))
    null = np.asarray(x.sum(0)).ravel() / x.sum()
    total, shares = explained_deviance(decoder, cells, null, np.zeros(3))

    dense, spread = x.toarray().astype(float), None if log_theta is None else np.exp(2.0)
    null_deviance = deviance(dense, np.outer(library, null), spread)
    assert total == pytest.approx(1 - deviance(dense, mean, spread) / null_deviance, rel=1e-5)
    without = latent[:, 1:] @ loadings[:, 1:].T
    without_mean = 400 * np.exp(without) / np.exp(without).sum(1, keepdims=True)
    expected = (deviance(dense, without_mean, spread) - deviance(dense, mean, spread)) / null_deviance
    assert shares[0] == pytest.approx(expected, rel=1e-5)
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] == pytest.approx(0, abs=1e-12)
