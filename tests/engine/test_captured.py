"""Captured steps: on the CPU with what stands in for a CUDA graph, and on a CUDA device, if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse

import sc_ldvae
from sc_ldvae.counts import Minibatch
from sc_ldvae.engine import AdaptivePrior, AdaptivePriors, Autograd, AutogradEngine, CapturedEngine, engine_of
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LDVAE, Normal, _log_probs

if TYPE_CHECKING:
    from collections.abc import Callable

N_GENES, N_LATENT, N_BATCH = 31, 3, 3
# Minibatches are equal to within one cell; the adaptive prior is in every fourth step.
SIZES = (24, 25, 24, 24, 25, 24, 24, 25, 24, 25, 25, 25, 25)
MODES: list[dict[str, Any]] = [
    {"gene_likelihood": "nb"},
    {"gene_likelihood": "zinb", "use_batch_norm": False, "bias": True, "latent_distribution": "ln"},
    {"gene_likelihood": "poisson", "use_observed_lib_size": True, "log_variational": False},
    {"gene_likelihood": "nb", "dispersion": "gene-cell", "n_layers_encoder": 2},
    {"gene_likelihood": "zinb", "dispersion": "gene-batch"},
    {"gene_likelihood": "nb", "dispersion": "gene-label", "latent_distribution": "ln"},
    {"gene_likelihood": "bernoulli"},
]
in_modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def minibatches(dtype: torch.dtype) -> list[Minibatch]:
    rng = np.random.default_rng(0)
    number = torch.zeros((), dtype=dtype).numpy().dtype
    made = []
    for size in SIZES:
        x = sparse.csr_matrix(rng.negative_binomial(0.6, 0.2, (size, N_GENES)).astype(number))
        annotations = {
            "batch_index": rng.integers(N_BATCH, size=size),
            "labels": rng.integers(2, size=size),
            "cat_covs": rng.integers(2, size=(size, 1)),
            "cont_covs": rng.standard_normal((size, 1)).astype(number),
        }
        made.append(Minibatch(x, annotations))
    return made


def model_of(mode: dict[str, Any], dtype: torch.dtype, **options: Any) -> LDVAE:
    generator = torch.Generator().manual_seed(1)
    levels: dict[str, Any] = {"n_batch": N_BATCH, "n_labels": 2, "n_cats_per_cov": (2,), "n_continuous_cov": 1}
    model = LDVAE(N_GENES, n_latent=N_LATENT, n_hidden=12, **levels, **mode, **options, generator=generator)
    model.set_library_prior(torch.tensor([60.0, 90.0, 80.0, 70.0, 95.0, 85.0]), torch.arange(6) % N_BATCH)
    return model.to(dtype).train()


def prior_of(mode: dict[str, Any]) -> AdaptivePriors:
    prior = AdaptivePrior(LIKELIHOODS[mode["gene_likelihood"]], 500, N_LATENT, (N_BATCH, 2, 1))
    return AdaptivePriors([prior])


def steps(engine: Any, dtype: torch.dtype, generator: torch.Generator) -> list[torch.Tensor]:
    """ELBO of each cell, step by step."""
    made = enumerate(minibatches(dtype))
    return [engine.step(one, 0.01 / (i + 1), i / 10, generator).per_cell().cpu() for i, one in made]


def assert_alike(got: LDVAE, expected: LDVAE, **tolerance: float) -> None:
    for (name, value), other in zip(got.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(value.cpu(), other.cpu(), **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """The functions that a graph would be captured from; they are called anew in place of its replay."""
    functions: list[Callable[[], None]] = []

    def replay_of(_: CapturedEngine, function: Callable[[], None], __: torch.Generator) -> Callable[[], None]:
        functions.append(function)
        return function

    monkeypatch.setattr(CapturedEngine, "_replay_of", replay_of)
    return functions


@in_modes
def test_captured_steps_are_the_plain_ones(mode: dict[str, Any], again: list[Callable[[], None]]) -> None:
    plain, captured = (model_of(mode, torch.float64) for _ in range(2))
    priors = [prior_of(mode) for _ in range(2)]
    engines = AutogradEngine(plain, 0.05, priors[0]), CapturedEngine(captured, 0.05, priors[1])
    expected, got = (steps(engine, torch.float64, torch.Generator().manual_seed(3)) for engine in engines)
    # The learning rates of captured steps are numbers on the device, in single precision.
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert_alike(captured, plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(*(prior.scales[0] for prior in priors), rtol=1e-5)
    np.testing.assert_allclose(priors[1].evidence(), priors[0].evidence(), rtol=1e-3, atol=1e-3)
    # Two halves of steps of two sizes, with the prior and without.
    assert len(again) == 8


def test_large_minibatches_are_not_captured(again: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sc_ldvae.engine._captured._MOST", 24 * N_GENES)
    steps(CapturedEngine(model_of(MODES[0], torch.float32), 0.05), torch.float32, torch.Generator().manual_seed(3))
    assert len(again) == 2


@pytest.mark.parametrize("n_groups", [1, 40])
def test_gamma_functions_everywhere_are_those_of_the_nonzeros(n_groups: int) -> None:
    """What a device evaluates, against what the CPU does; gradients, too."""
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((40, N_GENES), 0.7, dtype=torch.float64), generator=generator)
    x[0, :3] = torch.tensor([9.0, 40.0, 3000.0])
    log_theta = (4 * torch.randn(n_groups, N_GENES, generator=generator)).double().requires_grad_()
    positions, at_nonzeros = _log_probs._at_nonzeros(x, log_theta)
    everywhere = _log_probs._everywhere(x, log_theta)
    torch.testing.assert_close(everywhere[positions], at_nonzeros, rtol=1e-12, atol=0)
    assert (everywhere[x == 0] == 0).all()
    wanted, got = (torch.autograd.grad(values.sum(), log_theta)[0] for values in (at_nonzeros, everywhere))
    torch.testing.assert_close(got, wanted)


@needs_cuda
@pytest.mark.parametrize("captured", [True, False])
@in_modes
def test_cuda_holds_the_values_of_the_cpu(
    mode: dict[str, Any], captured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise, for devices draw different numbers; and as a likelihood that has no kernel is trained."""
    monkeypatch.setattr(Normal, "rsample", lambda self, _: self.mean)
    if not captured:
        monkeypatch.setattr("sc_ldvae.engine._captured.TERMS", {})
    models = [model_of(mode, torch.float64, dropout_rate=0.0) for _ in range(2)]
    priors = [prior_of(mode) for _ in range(2)]
    expected = steps(AutogradEngine(models[0], 0.05, priors[0]), torch.float64, torch.Generator())
    models[1].to("cuda")
    with engine_of(models[1], 0.05, priors[1]) as engine:
        assert type(engine) is (CapturedEngine if captured else AutogradEngine)
        got = steps(engine, torch.float64, torch.Generator("cuda"))
        assert not captured or len(engine._captured) == 4
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert_alike(models[1], models[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(*(prior.scales[0] for prior in priors), rtol=1e-5)
    np.testing.assert_allclose(priors[1].evidence(), priors[0].evidence(), rtol=1e-3, atol=1e-3)


@needs_cuda
def test_replays_draw_what_plain_steps_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same bits again, whatever the program has set."""
    elbos = []
    for most, precision in ((2**23, "highest"), (2**23, "high"), (0, "highest")):
        monkeypatch.setattr("sc_ldvae.engine._captured._MOST", most)
        torch.set_float32_matmul_precision(precision)
        torch.cuda.manual_seed(len(elbos))
        model = model_of(MODES[4], torch.float32).to("cuda")
        with engine_of(model, 0.05, prior_of(MODES[4])) as engine:
            elbos.append(torch.cat(steps(engine, torch.float32, torch.Generator("cuda").manual_seed(3))))
        assert torch.get_float32_matmul_precision() == precision
    torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(elbos[1], elbos[0], rtol=0, atol=0)
    torch.testing.assert_close(elbos[2], elbos[0], rtol=1e-3, atol=1e-3)


@needs_cuda
@in_modes
def test_cuda_scores_as_the_cpu_does(mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Normal, "rsample", lambda self, _: self.mean)
    model, cells = model_of(mode, torch.float64).eval(), minibatches(torch.float64)[0]
    answers = []
    for device in ("cpu", "cuda"):
        scorer, generator = Autograd(model.to(device)), torch.Generator(device)
        found = [*scorer.posterior(cells), *scorer.elbo(cells, generator), scorer.log_weights(cells, generator)]
        answers.append([one for one in found if one is not None])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@needs_cuda
@pytest.mark.parametrize("mode", [{}, {"gene_likelihood": "zinb", "dispersion": "gene-cell", "batch_key": "batch"}])
def test_a_fit_on_cuda_is_one_on_the_cpu(mode: dict[str, Any]) -> None:
    """As good, the same bits again, and nothing of the process is another one afterwards."""
    adata = sc_ldvae.datasets.simulate(1000, 200, 4, n_batches=2, rng=0)
    before, stream = torch.cuda.get_rng_state(), torch.cuda.current_stream()
    fits = [
        sc_ldvae.tl.ldvae(adata, 6, device=device, copy=True, progress=False, **mode)
        for device in ("cpu", "cuda", "cuda")
    ]
    assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.cuda.current_stream() == stream
    first, again = (fit.uns["ldvae"] for fit in fits[1:])
    assert first["elbo_held_out"] == pytest.approx(fits[0].uns["ldvae"]["elbo_held_out"], rel=5e-3)
    assert first["elbo_held_out"] == again["elbo_held_out"]
    np.testing.assert_array_equal(fits[1].obsm["X_ldvae"], fits[2].obsm["X_ldvae"])
