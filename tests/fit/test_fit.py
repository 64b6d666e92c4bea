from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import sc_ldvae
from sc_ldvae._options import Schedule
from sc_ldvae.counts import Cells, InMemory
from sc_ldvae.engine import AutogradEngine, engine_of, scorer_of
from sc_ldvae.fit import Course, History, Rounds, default_max_epochs, mean_elbo, rounds_of, start_from_data
from sc_ldvae.fit._start import truncated_svd
from sc_ldvae.nn import LDVAE

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from sc_ldvae.fit import Watcher


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return sc_ldvae.datasets.simulate(130, 40, 3, mean_library=500, rng=0)


def prepare(counts: AnnData, n_training: int = 100) -> tuple[LDVAE, Cells, np.ndarray]:
    """A fresh model, cells, and which of these are held out."""
    model = LDVAE(counts.n_vars, n_latent=3, n_hidden=16, generator=torch.Generator().manual_seed(0))
    cells = Cells(InMemory(counts.X))
    model.set_library_prior(torch.from_numpy(cells.source.totals).float())
    return model, cells, np.arange(counts.n_obs) >= n_training


def run(
    counts: AnnData, n_training: int = 100, *, autograd: bool = False, watcher: Watcher | None = None, **schedule: Any
) -> tuple[LDVAE, History, str]:
    model, cells, held_out = prepare(counts, n_training)
    generator = torch.Generator().manual_seed(1)
    arguments = model, 1 / n_training
    with nullcontext(AutogradEngine(*arguments)) if autograd else engine_of(*arguments) as engine:
        course = Course(cells, held_out, Schedule(**schedule), generator, watcher)
        reason = course.run(model, engine)
    return model, course.history, reason


def held_out_elbo(model: LDVAE, cells: Cells, held_out: np.ndarray) -> float:
    model.eval()
    with scorer_of(model) as scorer:
        return mean_elbo(scorer, cells, np.flatnonzero(held_out))


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
    _, cells, held_out = prepare(counts)
    best = max(history.elbo_held_out)
    assert history.elbo_held_out[-1] < best
    assert held_out_elbo(model, cells, held_out) == pytest.approx(best, rel=1e-6)
    assert not model.training


def test_early_stopping_stops_and_says_so(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([-10.0, -9.0, *[-11.0] * 100])
    monkeypatch.setattr("sc_ldvae.fit._course.mean_elbo", lambda *_: next(scores))
    _, history, reason = run(counts, max_epochs=50, batch_size=100)
    assert len(history.epoch) == 22
    assert history.best() == 1
    assert reason == "held-out ELBO best in epoch 2, not improved for 20 epochs"


def test_without_early_stopping_it_runs_to_the_end(counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter(range(0, -100, -1))
    monkeypatch.setattr("sc_ldvae.fit._course.mean_elbo", lambda *_: float(next(scores)))
    _, history, reason = run(counts, max_epochs=20, batch_size=100, early_stopping=False)
    assert len(history.epoch) == 20
    assert reason == "max_epochs=20 reached"


def test_without_held_out_cells_the_last_state_is_kept(counts: AnnData) -> None:
    _, history, reason = run(counts, n_training=counts.n_obs, max_epochs=3)
    assert history.elbo_held_out == []
    assert history.best() == 2
    assert reason == "max_epochs=3 reached"


class Notes:
    """What a watcher is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[object, ...]] = []

    def waits(self, what: str) -> None:
        """Nothing to do."""

    def trained(self, model: LDVAE) -> None:
        self.lines.append(("trained", model.training))

    def scored(self, model: LDVAE, history: History, reason: str) -> None:
        self.lines.append(("scored", model.training, len(history.elbo), len(history.elbo_held_out), reason))


def test_a_watcher_is_told_twice_in_every_epoch_and_changes_nothing(counts: AnnData) -> None:
    notes = Notes()
    model, history, reason = run(counts, max_epochs=3, watcher=notes)
    assert notes.lines == [
        ("trained", True),
        ("scored", False, 1, 1, ""),
        ("trained", True),
        ("scored", False, 2, 2, ""),
        ("trained", True),
        ("scored", False, 3, 3, "max_epochs=3 reached"),
    ]
    alone, expected, _ = run(counts, max_epochs=3)
    assert (history, reason) == (expected, "max_epochs=3 reached")
    np.testing.assert_array_equal(model.get_loadings(), alone.get_loadings())


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
    assert default_max_epochs(10**7, 128) == 1


def test_a_fit_whose_factors_may_vanish_has_a_tenth_more_steps() -> None:
    assert rounds_of(Schedule(loadings_prior=None), 1280).n_epochs == 35
    assert rounds_of(Schedule(), 1280).n_epochs == pytest.approx(1.1 * 35, abs=0.5)
    assert rounds_of(Schedule(max_epochs=7), 1280).n_epochs == 7


def test_fits_of_less_than_300_steps_are_too_short_to_choose_factors() -> None:
    assert [rounds_of(Schedule(max_epochs=n), 1280).n_selecting for n in (29, 30, 40)] == [0, 14, 18]


@pytest.mark.parametrize(
    ("n_epochs", "steps_per_epoch", "per_epoch"),
    [(38, 10, 1), (10, 5000, 1), (3, 199, 1), (5, 399, 1), (5, 400, 2), (3, 703, 3), (2, 2109, 5), (1, 7031, 10)],
)
def test_long_epochs_are_cut_into_rounds(n_epochs: int, steps_per_epoch: int, per_epoch: int) -> None:
    rounds = Rounds(n_epochs, steps_per_epoch)
    assert (rounds.per_epoch, rounds.n) == (per_epoch, n_epochs * per_epoch)
    ends = [rounds.steps_after(n) for n in range(rounds.n + 1)]
    assert (ends[0], ends[-1]) == (0, n_epochs * steps_per_epoch)
    assert ends[::per_epoch] == list(range(0, ends[-1] + 1, steps_per_epoch))
    # One step more or less, where they can't be equal.
    assert max(np.diff(ends)) - min(np.diff(ends)) <= 1
    epochs = [rounds.epoch_after(n) for n in range(1, rounds.n + 1)]
    assert [epoch for epoch in epochs if isinstance(epoch, int)] == list(range(1, n_epochs + 1))
    np.testing.assert_allclose(epochs, np.arange(1, rounds.n + 1) / per_epoch)


def test_start_is_better_than_a_random_one_before_any_step(counts: AnnData) -> None:
    model, cells, held_out = prepare(counts)
    random = held_out_elbo(model, cells, held_out)
    start_from_data(model, cells.subset(np.flatnonzero(~held_out)))
    # One pass to fill the running statistics of the encoder's BatchNorm.
    model.train()
    for _ in range(50):
        model(torch.from_numpy(counts.X[~held_out].toarray()), generator=torch.Generator().manual_seed(0))
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
