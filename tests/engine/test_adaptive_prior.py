"""The adaptive prior: its gradients against autograd, its evidence against numerical integration."""

from __future__ import annotations

from contextlib import ExitStack
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse, stats

from sc_ldvae.counts import Minibatch
from sc_ldvae.engine import AdaptivePrior, AdaptivePriors, AutogradEngine, FusedElbo, Shown, engine_of
from sc_ldvae.kernels import sparse_rows
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LDVAE, Grouped

N_CELLS, N_GENES, N_LATENT, N_BATCH, N_TRAINING = 24, 31, 3, 3, 500
KL_WEIGHT, PRIOR_WEIGHT = 0.4, 0.05
# One step of so many has the prior, with as many times its weight.
EVERY = 4
# Columns of the batches, and a continuous covariate.
COVARIATES = (N_BATCH, 1)
MODES = [
    {"gene_likelihood": "nb"},
    {"gene_likelihood": "zinb", "use_batch_norm": False, "bias": True},
    {"gene_likelihood": "poisson", "use_observed_lib_size": True, "log_variational": False},
    {"gene_likelihood": "nb", "dispersion": "gene-cell", "n_layers_encoder": 2},
    {"gene_likelihood": "zinb", "dispersion": "gene-batch"},
    {"gene_likelihood": "nb_background"},
    {"gene_likelihood": "bernoulli"},
]


def counts(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = np.random.default_rng(0).negative_binomial(0.6, 0.2, (N_CELLS, N_GENES)).astype(float)
    # A gene that no cell has.
    x[:, 4] = 0
    return torch.as_tensor(x, dtype=dtype)


def annotations(dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    covariate = torch.linspace(-1, 1, N_CELLS, dtype=dtype)[:, None]
    return {"batch_index": torch.arange(N_CELLS) % N_BATCH, "cont_covs": covariate}


def model_of(mode: dict[str, Any], dtype: torch.dtype = torch.float64) -> LDVAE:
    generator = torch.Generator().manual_seed(1)
    arguments: dict[str, Any] = {"n_batch": N_BATCH, "n_latent": N_LATENT, "n_hidden": 12, "n_continuous_cov": 1}
    model = LDVAE(N_GENES, **arguments, generator=generator, dropout_rate=0.0, **mode).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(dtype))
    model.set_library_prior(counts(dtype).sum(1), annotations()["batch_index"])
    return model.train()


def prior_of(mode: dict[str, Any], *, of_factors: bool = True) -> AdaptivePrior:
    return AdaptivePrior(LIKELIHOODS[mode["gene_likelihood"]], N_TRAINING, N_LATENT * of_factors, COVARIATES)


def loss_of(model: LDVAE, *, of_factors: bool) -> tuple[torch.Tensor, np.ndarray]:
    """The loss of one step with all that the prior adds, written down once more; and the scales of all rows."""
    seen: dict[str, torch.Tensor] = {}
    hook = model.decoder.register_forward_pre_hook(lambda _, inputs: seen.update(u=inputs[0]))
    x = counts()
    terms = model(x, **annotations(), generator=torch.Generator().manual_seed(3))
    hook.remove()
    u, first = seen["u"], 0 if of_factors else N_LATENT
    effects = model.decoder.affine(u)[0].T[first:]
    if model.has_library:
        effects = effects - effects.mean(1, keepdim=True)
    w, squares = effects.detach().numpy(), u.detach().numpy()[:, first:] ** 2
    # Of a count its information at the mean count: 1 for Poisson, theta / (theta + mean) for a negative binomial.
    per_count = np.ones(N_GENES)
    if model.gene_likelihood == "bernoulli":
        x = x.sign()
        share = np.clip(x.numpy().mean(0), 1e-8, 1 - 1e-6)
        mean = -np.log(1 - share)
        per_count = mean**2 / (np.exp(mean) - 1) / share
    elif model.gene_likelihood != "poisson":
        part = dict(model.named_parts())["log_theta"]
        log_theta = part.table.mean(0) if isinstance(part, Grouped) else part.bias
        theta = log_theta.detach().exp().numpy()
        mean, shares = np.maximum(x.numpy().mean(0), 1e-8), 1.0
        if not model.has_library:
            # What is above the background alone tells of the factors.
            background = dict(model.named_parts())["log_background"].table[0].detach().exp().numpy()
            expression = np.maximum(mean - background, 0.01 * mean)
            mean = expression + background
            shares = (expression / mean) ** 2 * mean / np.maximum(x.numpy().mean(0), 1e-8)
        per_count = shares * theta / (theta + mean)
    information = N_TRAINING / N_CELLS * (squares.T @ x.numpy()) * per_count
    groups = [*([k] for k in range(N_LATENT * of_factors))]
    for size in COVARIATES:
        start = groups[-1][-1] + 1 if groups else 0
        groups.append(list(range(start, start + size)))
    scales = np.empty((len(w), 1))
    for rows in groups:
        before = (w[rows] ** 2).mean()
        after = (w[rows] ** 2 + 1 / (information[rows] + 1 / before)).mean()
        scales[rows] = np.sqrt(before + 0.3 * (after - before))
    log_prior = torch.distributions.Normal(0.0, torch.as_tensor(scales)).log_prob(effects).sum()
    loss = -terms.per_cell(KL_WEIGHT).mean() - PRIOR_WEIGHT * model.log_prior() - EVERY * log_prior / N_TRAINING
    if of_factors:
        variance = torch.as_tensor((1 / (information + 1 / scales**2))[:N_LATENT] * per_count)
        # Of each cell: half of its information about the loadings, times their variance, times its squared latent.
        loss = loss + EVERY * 0.5 * torch.einsum("ng,kg,nk->n", x, variance, u[:, :N_LATENT] ** 2).mean()
    return loss, scales[:, 0]


@pytest.mark.parametrize("of_factors", [True, False], ids=["factors", "covariates"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_gradients_are_those_of_autograd(mode: dict[str, Any], of_factors: bool) -> None:
    reference = model_of(mode)
    model, prior = deepcopy(reference), prior_of(mode, of_factors=of_factors)
    matrix = sparse.csr_matrix(counts().numpy())
    pointers, genes = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    rows = sparse_rows(pointers, genes, matrix.data, N_GENES, log_variational=model.log_variational)
    FusedElbo(model, AdaptivePriors([prior]))(
        N_CELLS,
        [Shown.all(rows, {name: values.numpy() for name, values in annotations().items()})],
        kl_weight=KL_WEIGHT,
        prior_weight=PRIOR_WEIGHT,
        generator=torch.Generator().manual_seed(3),
    )
    loss, scales = loss_of(reference, of_factors=of_factors)
    torch.autograd.backward(loss)
    np.testing.assert_allclose(prior.scale, scales[: prior.n_factors], rtol=1e-9)
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert other.grad is not None
        tolerance = 1e-8 * (1 + float(other.grad.abs().max()))
        torch.testing.assert_close(
            parameter.grad, other.grad, rtol=1e-8, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_one_step_of_four_has_the_prior() -> None:
    prior = AdaptivePriors([prior_of(MODES[0])])
    assert [prior.begin_step() for _ in range(9)] == [True, False, False, False] * 2 + [True]


@pytest.mark.parametrize("autograd", [True, False], ids=["autograd", "fused"])
def test_the_steps_between_are_those_without_it(autograd: bool) -> None:
    own = {name: values.numpy() for name, values in annotations(torch.float32).items()}
    minibatch = Minibatch(sparse.csr_matrix(counts(torch.float32).numpy()), own)
    weights = []
    for prior in (None, AdaptivePriors([prior_of(MODES[0])])):
        model = model_of(MODES[0], torch.float32)
        if prior is not None:
            prior.begin_step()
        with ExitStack() as stack:
            engine = (
                AutogradEngine(model, PRIOR_WEIGHT, prior)
                if autograd
                else stack.enter_context(engine_of(model, PRIOR_WEIGHT, prior))
            )
            for _ in range(3):
                engine.step(minibatch, 0.01, KL_WEIGHT, torch.Generator().manual_seed(5))
            weights.append(model.decoder.weight.detach().clone())
            engine.step(minibatch, 0.01, KL_WEIGHT, torch.Generator().manual_seed(5))
            weights.append(model.decoder.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[2], rtol=0, atol=0)
    assert not torch.equal(weights[1], weights[3])


@pytest.mark.parametrize("of_factors", [True, False], ids=["factors", "covariates"])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_both_engines_learn_the_same(mode: dict[str, Any], of_factors: bool) -> None:
    float32 = torch.float32
    own = {name: values.numpy() for name, values in annotations(float32).items()}
    minibatch = Minibatch(sparse.csr_matrix(counts(float32).numpy()), own)
    priors, models = [], []
    for autograd in (True, False):
        model, prior = model_of(mode, float32), prior_of(mode, of_factors=of_factors)
        generator = torch.Generator().manual_seed(5)
        if autograd:
            engine = AutogradEngine(model, PRIOR_WEIGHT, AdaptivePriors([prior]))
            for _ in range(2 * EVERY + 1):
                engine.step(minibatch, 0.01, KL_WEIGHT, generator)
        else:
            with engine_of(model, PRIOR_WEIGHT, AdaptivePriors([prior])) as fused:
                for _ in range(2 * EVERY + 1):
                    fused.step(minibatch, 0.01, KL_WEIGHT, generator)
        priors.append(prior)
        models.append(model)
    assert priors[0].scale == pytest.approx(priors[1].scale, rel=1e-3)
    assert priors[0].evidence() == pytest.approx(priors[1].evidence(), rel=1e-2, abs=1e-2)
    torch.testing.assert_close(models[0].decoder.weight, models[1].decoder.weight, rtol=1e-2, atol=1e-3)


def posterior_mode(x: np.ndarray, z: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """Loadings of genes with Poisson counts of log mean ``1 + w z`` under a normal prior, and their log evidence.

    The evidence is against loadings of zero, by summing over a fine grid.
    """
    grid = np.linspace(-1.5, 1.5, 6001)
    of_w = (x.T @ z)[:, None] * grid - np.exp(1 + np.outer(z, grid)).sum(0) + np.exp(1) * len(z)
    joint = of_w + stats.norm.logpdf(grid, scale=scale)
    evidence = np.log(np.exp(joint - joint.max(1, keepdims=True)).sum(1) * (grid[1] - grid[0])) + joint.max(1)
    return grid[joint.argmax(1)], float(evidence.sum())


@pytest.mark.parametrize("true_scale", [0.0, 0.05, 0.1])
def test_evidence_is_that_of_integration(true_scale: float) -> None:
    """Of Poisson counts with known latent, where nothing but the quadratic form is approximate."""
    rng = np.random.default_rng(int(1000 * true_scale))
    n, n_genes, scale = 400, 60, max(true_scale, 0.03)
    z, w = rng.standard_normal(n), true_scale * rng.standard_normal(n_genes)
    z -= z.mean()
    w -= w.mean()
    x = rng.poisson(np.exp(1 + np.outer(z, w)))
    loadings, evidence = posterior_mode(x, z, scale)
    prior = AdaptivePrior(LIKELIHOODS["poisson"], n, 1)
    residuals = x - np.exp(1 + np.outer(z, loadings))
    # At a mean count, as the prior sees the information.
    counted = np.vstack([np.exp(1 + np.outer(z, loadings)).T @ z**2 / n, np.full(n_genes, np.exp(1))])
    prior.observe(loadings[None], counted, np.zeros(1), {})
    prior.observe_slope((loadings * (residuals.T @ z)).sum(keepdims=True) / n)
    prior._squared_scales[:] = scale**2
    found = float(prior.evidence()[0])
    assert found == pytest.approx(evidence, rel=0.05, abs=1.0)
    assert (found > 0) == (true_scale > 0)


def test_at_least_one_factor_is_supported() -> None:
    prior = AdaptivePrior(LIKELIHOODS["poisson"], 1000, 3)
    rng = np.random.default_rng(0)
    prior.observe(1e-4 * rng.standard_normal((3, 50)), np.ones((4, 50)), np.array([0.3, 0.1, 0.2]), {})
    prior.observe_slope(np.zeros(3))
    assert (prior.evidence() < 0).all()
    np.testing.assert_array_equal(AdaptivePriors([prior]).supported(), [False, True, False])


def test_what_overflows_keeps_a_factor_and_warns_of_nothing() -> None:
    prior = AdaptivePrior(LIKELIHOODS["nb"], 1000, 2)
    huge = np.full((2, 5), 1e30, np.float32) * np.arange(5, dtype=np.float32)
    linear = {"log_theta": np.zeros(5, np.float32)}
    prior.observe(huge, np.full((3, 5), np.inf, np.float32), np.full(2, np.nan, np.float32), linear)
    prior.observe_slope(np.full(2, np.nan, np.float32))
    assert AdaptivePriors([prior]).supported().any()
