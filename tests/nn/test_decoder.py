from __future__ import annotations

import pytest
import torch
from torch import nn

from sc_ldvae.nn import BATCH_NORM_EPS, LinearDecoder, Normal


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[False, True], ids=["no-bias", "bias"])
def decoder(request: pytest.FixtureRequest, generator: torch.Generator) -> LinearDecoder:
    decoder = LinearDecoder(4, 6, bias=request.param, use_batch_norm=True).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(generator=generator)
    return decoder


def torchs_batch_norm(decoder: LinearDecoder) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(6, eps=BATCH_NORM_EPS).double()
    norm.weight, norm.bias = decoder.gamma, decoder.beta
    return norm


def plain_linear(decoder: LinearDecoder, u: torch.Tensor) -> torch.Tensor:
    return nn.functional.linear(u, decoder.weight, decoder.bias)


def test_training_is_torchs_batch_norm_of_the_linear_map(decoder: LinearDecoder, generator: torch.Generator) -> None:
    u = torch.randn(32, 4, dtype=torch.float64, generator=generator)
    expected = torchs_batch_norm(decoder)(plain_linear(decoder, u))
    torch.testing.assert_close(decoder(u), expected)


def test_gradients_are_those_of_torchs_batch_norm(decoder: LinearDecoder, generator: torch.Generator) -> None:
    u = torch.randn(32, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randn(32, 6, dtype=torch.float64, generator=generator)
    wanted = [u, decoder.weight, decoder.gamma, decoder.beta]
    expected = torch.autograd.grad((torchs_batch_norm(decoder)(plain_linear(decoder, u)) * target).sum(), wanted)
    got = torch.autograd.grad((decoder(u) * target).sum(), wanted)
    torch.testing.assert_close(got, expected)


def test_evaluation_normalises_by_the_running_statistics(decoder: LinearDecoder, generator: torch.Generator) -> None:
    inputs = torch.randn(5000, 4, dtype=torch.float64, generator=generator) * 2 + 1
    for minibatch in inputs.split(50):
        decoder(minibatch)
    decoder.eval()
    outputs = decoder(inputs)
    # Population statistics up to the noise of an exponential average of minibatches.
    torch.testing.assert_close(outputs.mean(0), decoder.beta, atol=0.15, rtol=0)
    torch.testing.assert_close(outputs.std(0), decoder.gamma.abs(), atol=0.15, rtol=0.1)


def test_folded_is_the_evaluation(decoder: LinearDecoder, generator: torch.Generator) -> None:
    u = torch.randn(32, 4, dtype=torch.float64, generator=generator)
    decoder(u)
    decoder.eval()
    weight, bias = decoder.folded()
    torch.testing.assert_close(u @ weight.T + bias, decoder(u))


@pytest.mark.parametrize("bias", [False, True])
def test_without_batch_norm_it_is_the_linear_map(bias: bool, generator: torch.Generator) -> None:
    decoder = LinearDecoder(4, 6, bias=bias, use_batch_norm=False)
    with torch.no_grad():
        decoder.weight.normal_(generator=generator)
    u = torch.randn(32, 4, generator=generator)
    torch.testing.assert_close(decoder(u), plain_linear(decoder, u))


def test_kl_is_torchs(generator: torch.Generator) -> None:
    mean, variance = torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator) + 0.1
    prior_mean, prior_variance = torch.tensor(0.7), torch.tensor(2.5)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, variance.sqrt()), normal(prior_mean, prior_variance**0.5))
    torch.testing.assert_close(Normal(mean, variance).kl(prior_mean, prior_variance), expected.sum(1))
