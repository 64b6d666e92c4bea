"""Joint models: the fused engine against the module itself, and the product of experts against densities on a grid."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import mudata
import numpy as np
import pytest
import torch
from scipy import sparse, stats

import sc_ldvae
from sc_ldvae.counts import PRESENT, Minibatch
from sc_ldvae.engine import (
    AdaptivePrior,
    AdaptivePriors,
    Autograd,
    AutogradEngine,
    FusedElbo,
    Shown,
    engine_of,
    scorer_of,
)
from sc_ldvae.engine._fusion import FusedProduct
from sc_ldvae.kernels import SparseRows, sparse_rows
from sc_ldvae.likelihoods import LIKELIHOODS
from sc_ldvae.nn import LDVAE, JointLDVAE, Normal
from sc_ldvae.nn._joint import Product

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
N_CELLS, N_LATENT, N_BATCH, N_LABELS, N_TRAINING = 22, 4, 3, 2, 400
WIDTHS, WEIGHTS = (23, 11, 31), (1.0, 2.5, 0.4)
KL_WEIGHT, PRIOR_WEIGHT = 0.3, 0.05
CITE, ATAC = ("nb", "nb_background"), ("nb", "nb_background", "bernoulli")
SEVERAL = ("zinb", "poisson", "nb")
MODES = {
    "cite": {"likelihoods": CITE},
    "cite-latent-library": {"likelihoods": CITE, "use_observed_lib_size": False},
    "cite-ln": {"likelihoods": CITE, "latent_distribution": "ln"},
    "three": {"likelihoods": ATAC, "use_batch_norm": False, "bias": True},
    "three-gene-cell": {"likelihoods": ATAC, "dispersion": "gene-cell", "use_observed_lib_size": False},
    "three-gene-batch": {"likelihoods": ATAC, "dispersion": "gene-batch", "n_layers_encoder": 3},
    "counts-gene-batch-ln": {
        "likelihoods": SEVERAL,
        "dispersion": "gene-batch",
        "latent_distribution": "ln",
        "use_observed_lib_size": False,
    },
    "counts-gene-cell": {"likelihoods": SEVERAL, "dispersion": "gene-cell", "log_variational": False},
}
CASES = [
    pytest.param(mode, where, id=f"{name}-{where}") for name, mode in MODES.items() for where in ("some", "absent")
]
CASES += [pytest.param(MODES[name], "all", id=f"{name}-all") for name in ("cite-latent-library", "three")]


def presence(n_views: int, where: str) -> np.ndarray:
    """Which cells have which modality: all of them, some (a few cells one alone), or nobody the second."""
    rng = np.random.default_rng(5)
    present = rng.random((N_CELLS, n_views)) < 0.7
    present[np.arange(N_CELLS), rng.integers(n_views, size=N_CELLS)] = True
    present[:n_views] = np.eye(n_views, dtype=bool)
    if where == "all":
        present[:] = True
    if where == "absent":
        present[:, 1], present[:, 0] = False, True
    return present


def counts(n_views: int, present: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    rng = np.random.default_rng(0)
    parts = [rng.negative_binomial(0.6, 0.2, (N_CELLS, width)).astype(float) for width in WIDTHS[:n_views]]
    # Counts beyond every table, a gene that no cell has, a cell with one count.
    parts[0][:, 4], parts[0][3, :2], parts[0][1] = 0, (40, 3000), 0
    parts[0][1, 5] = 1
    # Of proteins there may be none.
    parts[1][2] = 0 if n_views > 1 else parts[1][2]
    return torch.as_tensor(np.hstack([part * has[:, None] for part, has in zip(parts, present.T, strict=True)])).to(
        dtype
    )


def annotations(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "batch_index": torch.arange(N_CELLS) % N_BATCH,
        "labels": torch.arange(N_CELLS) % N_LABELS,
        "cat_covs": torch.randint(2, (N_CELLS, 1), generator=generator),
        "cont_covs": torch.randn(N_CELLS, 1, generator=generator).to(dtype),
    }


def sizes(likelihoods: tuple[str, ...], present: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Library of each cell in each modality, missing where it lacks one."""
    library = np.random.default_rng(7).uniform(20, 200, present.shape)
    library[:, [not LIKELIHOODS[name].has_library for name in likelihoods]] = 1
    return torch.as_tensor(np.where(present, library, np.nan)).to(dtype)


def model_of(mode: dict[str, Any], dtype: torch.dtype, dropout_rate: float = 0.1) -> JointLDVAE:
    options: dict[str, Any] = {"use_observed_lib_size": True, **mode}
    generator, likelihoods = torch.Generator().manual_seed(1), options.pop("likelihoods")
    views = [
        LDVAE(
            width,
            n_batch=N_BATCH,
            n_labels=N_LABELS,
            n_hidden=14,
            n_latent=N_LATENT,
            n_cats_per_cov=(2,),
            n_continuous_cov=1,
            gene_likelihood=likelihood,
            dropout_rate=dropout_rate,
            generator=generator,
            **options,
        )
        for width, likelihood in zip(WIDTHS, likelihoods, strict=False)
    ]
    model = JointLDVAE(views, WEIGHTS[: len(views)]).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator).to(dtype))
    batch = annotations(dtype)["batch_index"]
    for place, view in enumerate(model.views):
        view.set_library_prior(torch.linspace(20 + place, 90, N_CELLS, dtype=dtype), batch)
    return model


def rows_of(x: np.ndarray, model: LDVAE) -> SparseRows:
    matrix = sparse.csr_matrix(x)
    pointers, genes = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    return sparse_rows(pointers, genes, matrix.data, x.shape[1], log_variational=model.log_variational)


def shown_of(model: JointLDVAE, given: dict[str, torch.Tensor], present: np.ndarray) -> list[Shown]:
    """What the fused engine is given of what the module is given."""
    x, start, shown = given["x"].numpy(), 0, []
    own = {name: values.numpy() for name, values in given.items() if name not in {"x", "present", "size_factor"}}
    for place, view in enumerate(model.views):
        cells = np.flatnonzero(present[:, place])
        known = {name: values[cells] for name, values in own.items()}
        known["size_factor"] = given["size_factor"].numpy()[cells, place]
        rows = rows_of(x[cells, start : start + view.n_input], view)
        shown.append(Shown.all(rows, known) if len(cells) == len(x) else Shown(cells, rows, known))
        start += view.n_input
    return shown


def given_of(mode: dict[str, Any], where: str, dtype: torch.dtype) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Arguments of the module, and which cells have which modality."""
    present = presence(len(mode["likelihoods"]), where)
    given = {"x": counts(len(mode["likelihoods"]), present, dtype), **annotations(dtype)}
    given["size_factor"] = sizes(mode["likelihoods"], present, dtype)
    return given | ({} if where == "all" else {"present": torch.as_tensor(present)}), present


def check(mode: dict[str, Any], where: str, dtype: torch.dtype, *, training: bool = True, tolerance: float) -> None:
    given, present = given_of(mode, where, dtype)
    reference = model_of(mode, dtype).train(training)
    model = deepcopy(reference)
    fused = FusedElbo(model)
    if where == "absent":
        # What a step before has left is no part of the gradient.
        fused.gradient.fill_(3)
    got = fused(
        N_CELLS,
        shown_of(model, given, present),
        kl_weight=KL_WEIGHT,
        prior_weight=PRIOR_WEIGHT,
        generator=torch.Generator().manual_seed(3),
    )
    expected = reference(**given, generator=torch.Generator().manual_seed(3))
    for term, other in zip(got, expected, strict=True):
        torch.testing.assert_close(term, other.detach(), rtol=tolerance, atol=10 * tolerance)
    for (name, buffer), other in zip(model.named_buffers(), reference.buffers(), strict=True):
        if "num_batches" not in name:
            torch.testing.assert_close(buffer, other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")
    if not training:
        return
    (-expected.per_cell(KL_WEIGHT).mean() - PRIOR_WEIGHT * reference.log_prior()).backward()
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        gradient = torch.zeros_like(other) if other.grad is None else other.grad
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            parameter.grad, gradient, rtol=tolerance, atol=tolerance * (1 + scale), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("mode", "where"), CASES)
def test_values_and_gradients_in_double_precision(mode: dict[str, Any], where: str) -> None:
    check(mode, where, torch.float64, tolerance=1e-9)


@pytest.mark.parametrize(("mode", "where"), CASES)
def test_values_and_gradients_in_single_precision(mode: dict[str, Any], where: str) -> None:
    check(mode, where, torch.float32, tolerance=2e-4)


@pytest.mark.parametrize(("mode", "where"), CASES)
def test_values_in_evaluation_mode(mode: dict[str, Any], where: str) -> None:
    check(mode, where, torch.float64, training=False, tolerance=1e-9)


@pytest.mark.parametrize(("mode", "where"), CASES)
def test_importance_weights_and_posteriors(mode: dict[str, Any], where: str) -> None:
    given, present = given_of(mode, where, torch.float64)
    model = model_of(mode, torch.float64).eval()
    fused, shown = FusedElbo(model), shown_of(model, given, present)
    with torch.no_grad():
        expected = model.log_weights(**given, generator=torch.Generator().manual_seed(3))
        q, libraries = model.posterior(given["x"], given.get("present"))
    got = fused.log_weights(N_CELLS, shown, torch.Generator().manual_seed(3))
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    (mean, variance), of_libraries = fused.posterior(N_CELLS, shown)
    np.testing.assert_allclose(mean, q.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(variance, q.variance, rtol=1e-9)
    for own, other in zip(of_libraries, libraries, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            np.testing.assert_allclose(own, other.mean[:, 0], rtol=1e-9)


def test_a_cell_is_as_probable_as_its_modalities_together() -> None:
    """By the models of the modalities, at the draw that the product of their posteriors gives."""
    mode = MODES["three"]
    given, present = given_of(mode, "some", torch.float64)
    model = model_of(mode, torch.float64).eval()
    own = {name: given[name] for name in ("batch_index", "labels", "cat_covs", "cont_covs")}
    with torch.no_grad():
        terms = model(**given, generator=torch.Generator().manual_seed(3))
        noise = torch.randn(N_CELLS, N_LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        parts = given["x"].split(list(WIDTHS), 1)
        posteriors = [view.encode(x).z for view, x in zip(model.views, parts, strict=True)]
        for cell in range(N_CELLS):
            experts = [posteriors[i] for i in np.flatnonzero(present[cell])]
            precision = 1 + sum(1 / one.variance[cell] for one in experts)
            mean = sum(one.mean[cell] / one.variance[cell] for one in experts) / precision
            z, expected = mean + noise[cell] / precision.sqrt(), 0.0
            for i in np.flatnonzero(present[cell]):
                at = {name: values[[cell]] for name, values in own.items()}
                log_library = given["size_factor"][cell, i].log().reshape(1, 1)
                expected += float(model.views[i].log_likelihood(parts[i][[cell]], z[None], log_library, **at))
            assert float(terms.log_likelihood[cell]) == pytest.approx(expected, rel=1e-9)
            q = stats.norm(mean.numpy(), precision.numpy() ** -0.5)
            # The divergence by its definition, integrated.
            grid = np.linspace(-12, 12, 20001)[:, None]
            ratio = q.logpdf(grid) - stats.norm.logpdf(grid)
            kl = (q.pdf(grid) * ratio).sum() * (grid[1, 0] - grid[0, 0])
            assert float(terms.kl_z[cell]) == pytest.approx(kl, rel=1e-6)


@pytest.mark.parametrize("fused", [False, True], ids=["module", "fused"])
def test_the_product_is_that_of_densities(fused: bool) -> None:
    """Normalised on a grid; the second expert has not seen the first cell, and nobody the last one."""
    rng = np.random.default_rng(0)
    places = [np.array([0, 1, 2]), np.array([1, 2])]
    moments = [(rng.normal(0, 1.5, (len(own), 1)), rng.uniform(0.05, 2, (len(own), 1))) for own in places]
    if fused:
        mean, variance = FusedProduct().forward(4, [(own, *of) for own, of in zip(places, moments, strict=True)])
    else:
        experts = [
            (torch.as_tensor(own), Normal(*map(torch.as_tensor, of))) for own, of in zip(places, moments, strict=True)
        ]
        mean, variance = (values.numpy() for values in Product()(4, experts))
    grid = np.linspace(-15, 15, 60001)
    for cell in range(4):
        log_density = stats.norm.logpdf(grid)
        for own, (means, variances) in zip(places, moments, strict=True):
            for i in np.flatnonzero(own == cell):
                log_density += stats.norm.logpdf(grid, means[i, 0], variances[i, 0] ** 0.5)
        weights = np.exp(log_density - log_density.max())
        weights /= weights.sum()
        assert mean[cell, 0] == pytest.approx(weights @ grid, rel=1e-6, abs=1e-9)
        assert variance[cell, 0] == pytest.approx(weights @ (grid - mean[cell, 0]) ** 2, rel=1e-6)


def minibatch_of(mode: dict[str, Any], where: str, dtype: torch.dtype = torch.float32) -> Minibatch:
    given, present = given_of(mode, where, dtype)
    known = {name: values.numpy() for name, values in given.items() if name not in {"x", "present"}}
    return Minibatch(sparse.csr_matrix(given["x"].numpy()), {**known, PRESENT: present})


def priors_of(mode: dict[str, Any], *, of_factors: bool = True) -> AdaptivePriors:
    """Of modalities that fewer and fewer of the training cells have."""
    covariates = (N_BATCH, 2, 1)
    return AdaptivePriors(
        [
            AdaptivePrior(LIKELIHOODS[name], N_TRAINING - 90 * i, N_LATENT * of_factors, covariates, n_cells=N_TRAINING)
            for i, name in enumerate(mode["likelihoods"])
        ]
    )


@pytest.mark.parametrize(
    ("name", "of_factors"),
    [
        pytest.param(name, of_factors, id=f"{name}-{'factors' if of_factors else 'covariates'}")
        for name, of_factors in (
            ("cite-latent-library", True),
            ("three", True),
            ("three", False),
            ("three-gene-cell", True),
            ("counts-gene-cell", False),
        )
    ],
)
def test_both_engines_learn_the_same(name: str, of_factors: bool) -> None:
    """Steps without one of the modalities among them."""
    mode = MODES[name]
    minibatches = [minibatch_of(mode, where) for where in ("some", "absent", "all")]
    priors, models = [], []
    for autograd in (True, False):
        model, prior = model_of(mode, torch.float32, 0.0).train(), priors_of(mode, of_factors=of_factors)
        generator = torch.Generator().manual_seed(5)
        if autograd:
            engine = AutogradEngine(model, PRIOR_WEIGHT, prior)
            for step in range(9):
                engine.step(minibatches[step % 3], 0.01, KL_WEIGHT, generator)
        else:
            with engine_of(model, PRIOR_WEIGHT, prior) as fused:
                for step in range(9):
                    fused.step(minibatches[step % 3], 0.01, KL_WEIGHT, generator)
        priors.append(prior)
        models.append(model)
    for one, other in zip(priors[0].scales, priors[1].scales, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    assert priors[0].evidence() == pytest.approx(priors[1].evidence(), rel=1e-2, abs=1e-2)
    for (parameter, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if "linear.bias" in parameter:
            # BatchNorm takes it out: its gradient is what rounding leaves.
            continue
        torch.testing.assert_close(one, other, rtol=1e-2, atol=2e-3, msg=lambda m, n=parameter: f"{n}: {m}")


@pytest.mark.parametrize("name", ["cite-latent-library", "three", "counts-gene-batch-ln"])
def test_scorers_show_each_modality_its_own_cells(name: str) -> None:
    """Of a minibatch, in place of what is shown of it."""
    given, _ = given_of(MODES[name], "some", torch.float32)
    model = model_of(MODES[name], torch.float32).eval()
    with torch.no_grad():
        expected = model(**given, generator=torch.Generator().manual_seed(3)).per_cell()
        weights = model.log_weights(**given, generator=torch.Generator().manual_seed(3))
    minibatch = minibatch_of(MODES[name], "some")
    with scorer_of(model) as scorer:
        got = scorer.elbo(minibatch, torch.Generator().manual_seed(3)).per_cell()
        of_draws = scorer.log_weights(minibatch, torch.Generator().manual_seed(3))
        # Cells that are encoded once for several draws have the draws, and the bits, of those that are encoded anew.
        known = scorer.encoded(minibatch)
        for _ in range(2):
            assert (scorer.elbo(minibatch, torch.Generator().manual_seed(3), known).per_cell() == got).all()
            assert (scorer.log_weights(minibatch, torch.Generator().manual_seed(3), known) == of_draws).all()
    torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-3)
    torch.testing.assert_close(of_draws, weights, rtol=2e-4, atol=2e-3)


def test_modalities_bear_the_divergence_together() -> None:
    priors, divergence = priors_of(MODES["three"]), np.array([0.7, 0.1, 2.0, 0.0])
    of_all = sum(prior.n_training * priors.share(i, divergence) for i, prior in enumerate(priors.of_views))
    np.testing.assert_allclose(of_all, N_TRAINING * divergence)
    shares = [prior.n_training * priors.share(i, divergence)[0] for i, prior in enumerate(priors.of_views)]
    np.testing.assert_allclose(shares, shares[0])


def test_a_factor_stays_where_all_modalities_together_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = {400: np.array([50.0, -60.0, 5.0, -1.0]), 310: np.array([-20.0, 50.0, -1.0, -1.0])}
    monkeypatch.setattr(AdaptivePrior, "evidence", lambda prior: evidence[prior.n_training])
    priors = priors_of(MODES["cite"])
    np.testing.assert_array_equal(priors.evidence(), [30, -10, 4, -2])
    np.testing.assert_array_equal(priors.supported(), [True, False, True, False])


def test_priors_go_on_from_their_state() -> None:
    mode, generator = MODES["three"], torch.Generator()
    first, minibatch = priors_of(mode), minibatch_of(mode, "some")
    with engine_of(model_of(mode, torch.float32).train(), PRIOR_WEIGHT, first) as engine:
        for _ in range(6):
            engine.step(minibatch, 0.01, KL_WEIGHT, generator.manual_seed(5))
    second = priors_of(mode)
    second.load(first.state())
    np.testing.assert_array_equal(second.evidence(), first.evidence())
    np.testing.assert_array_equal(second.scales, first.scales)
    assert [second.begin_step() for _ in range(4)] == [first.begin_step() for _ in range(4)]


@needs_cuda
@pytest.mark.parametrize("name", ["cite-latent-library", "three", "three-gene-cell"])
def test_cuda_holds_the_values_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores and steps without noise, for devices draw different numbers."""
    monkeypatch.setattr(Normal, "rsample", lambda self, _: self.mean)
    mode = MODES[name]
    minibatches = [minibatch_of(mode, where, torch.float64) for where in ("some", "absent", "all")]
    models, answers = [], []
    for device in ("cpu", "cuda"):
        model, prior = model_of(mode, torch.float64, 0.0).to(device), priors_of(mode)
        generator, found = torch.Generator(device), []
        engine = AutogradEngine(model.train(), PRIOR_WEIGHT, prior)
        for step in range(9):
            found += engine.step(minibatches[step % 3], 0.01, KL_WEIGHT, generator)
        scorer = Autograd(model.eval())
        for cells in minibatches:
            mean, variance, libraries = scorer.posterior(cells)
            found += [mean, variance, *(one for one in libraries if one is not None), *scorer.elbo(cells, generator)]
        models.append(model)
        answers.append([one.detach().cpu() for one in found])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for (parameter, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if "linear.bias" not in parameter:
            torch.testing.assert_close(other.cpu(), one, rtol=1e-4, atol=1e-5, msg=lambda m, n=parameter: f"{n}: {m}")


@needs_cuda
def test_a_fit_on_cuda_is_one_on_the_cpu() -> None:
    """As good, and the same bits again; a fifth of the cells have no proteins."""
    rna, prot = (sc_ldvae.datasets.simulate(1000, n, 4, rng=0) for n in (200, 40))
    prot.var_names = "protein" + prot.var_names.str.removeprefix("gene")
    mdata = mudata.MuData({"rna": rna, "prot": prot[200:].copy()})
    fits = [
        sc_ldvae.tl.ldvae(mdata, 6, modalities=["rna", "prot"], device=device, copy=True, progress=False)
        for device in ("cpu", "cuda", "cuda")
    ]
    elbos = [fit["rna"].uns["ldvae"]["elbo_held_out"] for fit in fits]
    assert elbos[1] == pytest.approx(elbos[0], rel=5e-3)
    assert elbos[1] == elbos[2]
    np.testing.assert_array_equal(fits[1].obsm["X_ldvae"], fits[2].obsm["X_ldvae"])
