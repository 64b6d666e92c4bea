from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sc_ldvae.nn import log_bernoulli, log_nb, log_nb_background, log_poisson, log_zinb

COUNTS = np.array([[0, 1, 2, 5, 30, 100, 1000, 10_000]])
MEANS = (1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e5)
THETAS = (1e-8, 1e-4, 0.1, 1.0, 10.0, 15.99, 16.01, 100.0, 1e4, 1e6)


def tensors(dtype: torch.dtype, *values: float) -> list[torch.Tensor]:
    """Counts, then the logs of `values` spread over them."""
    logs = [torch.full(COUNTS.shape, float(np.log(value)), dtype=torch.float64).to(dtype) for value in values]
    return [torch.tensor(COUNTS, dtype=dtype), *logs]


def scipy_nb(mean: float, theta: float) -> np.ndarray:
    return stats.nbinom.logpmf(COUNTS, theta, theta / (theta + mean))


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("mean", MEANS)
def test_nb_is_scipys(mean: float, theta: float) -> None:
    got = log_nb(*tensors(torch.float64, mean, theta)).numpy()
    np.testing.assert_allclose(got, scipy_nb(mean, theta), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("mean", MEANS)
def test_nb_in_single_precision_is_as_good_as_its_largest_term(mean: float, theta: float) -> None:
    got = log_nb(*tensors(torch.float32, mean, theta)).numpy()
    # log x! and x log(mu / theta) are what has to cancel; nothing of the size of theta may.
    terms = stats.nbinom.logpmf(0, theta, theta / (theta + mean)) - np.abs(COUNTS * np.log(mean / theta))
    terms = np.abs(terms) + COUNTS * np.log(COUNTS + 1)
    assert (np.abs(got - scipy_nb(mean, theta)) <= 1e-6 * terms + 1e-5).all()


@pytest.mark.parametrize("theta", [0.1, 10.0, 1e6])
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("logit", [-30.0, -1.0, 0.0, 3.0, 30.0])
def test_zinb_is_the_mixture(mean: float, theta: float, logit: float) -> None:
    x, log_mu, log_theta = tensors(torch.float64, mean, theta)
    got = log_zinb(x, log_mu, log_theta, torch.full(x.shape, logit, dtype=torch.float64)).numpy()
    log_extra, log_no_extra = -np.logaddexp(0, -logit), -np.logaddexp(0, logit)
    expected = log_no_extra + scipy_nb(mean, theta)
    expected[COUNTS == 0] = np.logaddexp(log_extra, expected[COUNTS == 0])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("theta", [0.1, 10.0])
@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("background", [1e-6, 0.5, 300.0])
def test_a_background_is_added_to_the_mean(mean: float, theta: float, background: float) -> None:
    got = log_nb_background(*tensors(torch.float64, mean, theta, background)).numpy()
    np.testing.assert_allclose(got, scipy_nb(mean + background, theta), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mean", MEANS)
def test_poisson_is_torchs(mean: float) -> None:
    x, log_mu = tensors(torch.float64, mean)
    expected = torch.distributions.Poisson(log_mu.exp()).log_prob(x)
    torch.testing.assert_close(log_poisson(x, log_mu), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("mean", [1e-300, 1e-30, *MEANS])
def test_bernoulli_is_scipys_and_has_its_gradient(mean: float, dtype: torch.dtype) -> None:
    """Also where the mean, or the probability of none, is zero in such numbers."""
    x, log_mu = tensors(dtype, mean)
    log_mu.requires_grad_()
    got = log_bernoulli(x, log_mu)
    got.sum().backward()
    tolerance = {"rtol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-5}
    expected = np.where(COUNTS > 0, stats.poisson.logsf(0, mean), -mean)
    np.testing.assert_allclose(got.detach().numpy(), expected, **tolerance)
    slope = np.where(COUNTS > 0, mean / np.expm1(min(mean, 700.0)), -mean)
    np.testing.assert_allclose(log_mu.grad.numpy(), slope, rtol=tolerance["rtol"], atol=1e-5)


@pytest.mark.parametrize("mean", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("theta", [1e-4, 1.0, 15.99, 16.01, 1e6])
def test_gradients_of_nb_are_those_of_the_direct_formula(mean: float, theta: float) -> None:
    x, log_mu, log_theta = tensors(torch.float64, mean, theta)
    ours = [log_mu.clone().requires_grad_(), log_theta.clone().requires_grad_()]
    log_nb(x, *ours).sum().backward()
    mu, inverse_dispersion = np.float64(mean), np.float64(theta)
    from scipy.special import digamma

    by_log_mu = COUNTS - (COUNTS + inverse_dispersion) * mu / (mu + inverse_dispersion)
    by_log_theta = inverse_dispersion * (
        digamma(COUNTS + inverse_dispersion)
        - digamma(inverse_dispersion)
        - np.log1p(mu / inverse_dispersion)
        + (mu - COUNTS) / (mu + inverse_dispersion)
    )
    np.testing.assert_allclose(ours[0].grad.numpy(), by_log_mu, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(ours[1].grad.numpy(), by_log_theta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("log_prob", "n_parameters"),
    [
        pytest.param(log_poisson, 1, id="poisson"),
        pytest.param(log_bernoulli, 1, id="bernoulli"),
        pytest.param(log_nb, 2, id="nb"),
        pytest.param(log_zinb, 3, id="zinb"),
        pytest.param(log_nb_background, 3, id="nb_background"),
    ],
)
@pytest.mark.parametrize("shared", [False, True], ids=["per-cell", "per-gene"])
def test_gradients_are_finite_differences(log_prob: callable, n_parameters: int, shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([[0.0, 1.0, 7.0], [3.0, 0.0, 40.0]], dtype=torch.float64)
    shape = (1, 3) if shared else (2, 3)
    parameters = [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(n_parameters)
    ]
    assert torch.autograd.gradcheck(lambda *p: log_prob(x, *p), parameters)
