"""Signs of loadings: the local false sign rate and its q-value."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.stats import norm

from sc_ldvae.assess import signs
from sc_ldvae.assess._signs import _grid


def drawn(share: float = 0.3, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, of which a share is not zero, estimates and their errors."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < share, rng.normal(0, 1, n), 0)
    errors = rng.gamma(4, 0.08, n)
    return truth, truth + errors * rng.normal(size=n), errors


def prior_weights(estimates: np.ndarray, errors: np.ndarray, sds: np.ndarray) -> np.ndarray:
    """Most probable weights given ten more zeros, by many steps of EM."""
    densities = norm.pdf(estimates[:, None], scale=np.sqrt(errors[:, None] ** 2 + sds**2))
    weights = np.full(len(sds), 1 / len(sds))
    for _ in range(5000):
        membership = densities * weights / (densities @ weights)[:, None]
        weights = membership.sum(axis=0)
        weights[0] += 10
        weights /= weights.sum()
    return weights


def test_false_sign_rate_is_that_of_the_posterior_by_numerical_integration() -> None:
    _, estimates, errors = drawn(n=60)
    sds = _grid(estimates, errors)
    weights = prior_weights(estimates, errors, sds)
    positive = np.exp(np.linspace(np.log(1e-5), np.log(20), 20_001))
    prior = sum(w * norm.pdf(positive, scale=sd) for w, sd in zip(weights[1:], sds[1:], strict=True))
    expected = []
    for estimate, error in zip(estimates, errors, strict=True):
        above, below = (trapezoid(prior * norm.pdf(estimate, sign * positive, error), positive) for sign in (1, -1))
        zero = weights[0] * norm.pdf(estimate, scale=error)
        expected.append((zero + min(above, below)) / (zero + above + below))
    lfsr, _ = signs(estimates, errors)
    np.testing.assert_allclose(lfsr, expected, atol=5e-3)
    assert lfsr.min() < 0.01
    assert lfsr.max() > 0.8


def test_other_signs_are_as_certain() -> None:
    _, estimates, errors = drawn()
    flips = np.random.default_rng(1).choice([-1.0, 1.0], len(estimates))
    for one, other in zip(signs(estimates, errors), signs(flips * estimates, errors), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-4, 0.5, 30.0])
def test_unit_does_not_matter(unit: float) -> None:
    _, estimates, errors = drawn()
    for one, other in zip(signs(estimates, errors), signs(unit * estimates, unit * errors), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_noise_alone_has_no_certain_sign(seed: int) -> None:
    _, estimates, errors = drawn(share=0, seed=seed)
    lfsr, qvalue = signs(estimates, errors)
    assert lfsr.min() > 0.3
    assert qvalue.min() > 0.3


def test_strong_signals_have_certain_signs() -> None:
    truth, _, errors = drawn()
    errors = errors / 20
    lfsr, qvalue = signs(truth + errors * np.random.default_rng(1).normal(size=len(truth)), errors)
    strong = np.abs(truth) > 6 * errors
    assert strong.sum() > 50
    assert lfsr[strong].max() < 0.01
    assert qvalue[strong].max() < 0.01
    assert lfsr[truth == 0].mean() > 0.8


def test_qvalue_is_the_mean_rate_of_all_that_are_as_certain() -> None:
    _, estimates, errors = drawn()
    lfsr, qvalue = signs(estimates, errors)
    for i in range(0, len(lfsr), 20):
        assert qvalue[i] == pytest.approx(lfsr[lfsr <= lfsr[i]].mean(), abs=1e-9)
    assert (np.diff(qvalue[np.argsort(lfsr)]) >= 0).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_share_of_wrong_signs_is_what_the_qvalue_says(share: float) -> None:
    wrong = called = 0
    for seed in range(5):
        truth, estimates, errors = drawn(share, n=600, seed=seed)
        chosen = signs(estimates, errors)[1] < 0.1
        wrong += (np.sign(truth) != np.sign(estimates))[chosen].sum()
        called += chosen.sum()
    assert called > 30
    # Three standard errors of a share of 0.1.
    assert wrong / called < 0.1 + 3 * np.sqrt(0.09 / called)


@pytest.mark.parametrize(
    ("estimates", "certain"),
    [
        pytest.param([0.0], False, id="one-gene-zero"),
        pytest.param([0.5], False, id="one-gene"),
        pytest.param([0.0] * 5, False, id="all-zero"),
        pytest.param([3.0] * 200, True, id="all-equal"),
    ],
)
def test_few_or_equal_estimates(estimates: list[float], certain: bool) -> None:
    lfsr, qvalue = signs(np.array(estimates), np.full(len(estimates), 0.2))
    for rates in (lfsr, qvalue):
        assert np.ptp(rates) < 1e-12
        assert 0 <= rates[0] <= 1
        assert (rates[0] < 0.01) == certain
