"""How probable a fit finds counts: against torch.distributions, quadrature and the module itself."""

from __future__ import annotations

import random
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from scipy.special import logsumexp, softmax
from torch import distributions

import sc_ldvae
from sc_ldvae import fit, record, tl
from sc_ldvae.engine import FusedElbo
from sc_ldvae.kernels import sparse_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from sc_ldvae.nn import LDVAE

SCORES = [tl.elbo, tl.reconstruction_error, tl.marginal_log_likelihood]
each_score = pytest.mark.parametrize("score", SCORES)
MODES = [
    pytest.param({"gene_likelihood": likelihood, "dispersion": dispersion}, id=f"{likelihood}-{dispersion}")
    for likelihood, dispersion in product(("nb", "zinb", "poisson"), ("gene", "gene-batch", "gene-label", "gene-cell"))
] + [
    pytest.param({"latent_distribution": "ln"}, id="ln"),
    pytest.param({"use_observed_lib_size": True}, id="observed-library"),
    pytest.param({"size_factor_key": "size_factor"}, id="size-factor"),
    pytest.param({"log_variational": False, "n_layers_encoder": 2}, id="deep-encoder-of-counts"),
]


@pytest.fixture(scope="module")
def raw() -> AnnData:
    adata = sc_ldvae.datasets.simulate(90, 30, 2, n_batches=2, n_continuous=1, rng=0)
    rng = np.random.default_rng(0)
    adata.obs["label"] = rng.choice(["a", "b", "c"], 90)
    adata.obs["size_factor"] = rng.gamma(20, 0.05, 90)
    return adata


@pytest.fixture
def fit_with(raw: AnnData, fit_quickly: Callable[..., AnnData]) -> Callable[..., AnnData]:
    def fit_it(**options: Any) -> AnnData:
        every = {"batch_key": "batch", "labels_key": "label", "continuous_covariate_keys": ["covariate1"]}
        return fit_quickly(raw, 2, copy=True, **every | options)

    return fit_it


@pytest.fixture
def scored(fitted: AnnData) -> AnnData:
    """A fit of which a test may change the copy."""
    return fitted.copy()


def score_of(score: Callable[..., float], adata: AnnData, **options: Any) -> float:
    # The default of the marginal is 100 draws, which nothing here needs but what asks for them.
    return score(adata, progress=False, **{"n_samples": 10} | options)


def per_cell(score: Callable[..., float], adata: AnnData, **options: Any) -> np.ndarray:
    mean = score_of(score, adata, key_added="score", **options)
    values = adata.obs["score"].to_numpy()
    assert values.mean() == pytest.approx(mean, rel=1e-12)
    return values


def module_and_cells(adata: AnnData) -> tuple[LDVAE, dict[str, torch.Tensor]]:
    """The model of the record in double precision, and its arguments, made here from obs alone."""
    known = record.read(adata)
    model = fit.unfolded(known.folded)
    codes = {name: adata.obs[name].astype("category").cat.codes.to_numpy(np.int64) for name in ("batch", "label")}
    continuous = adata.obs["covariate1"].to_numpy()
    cells = {
        "x": torch.tensor(adata.X.toarray(), dtype=torch.float64),
        "batch_index": torch.tensor(codes["batch"]),
        "labels": torch.tensor(codes["label"]),
        "cont_covs": torch.tensor((continuous - continuous.mean()) / continuous.std())[:, None],
    }
    if known.param("size_factor_key"):
        factor = adata.obs["size_factor"].to_numpy()
        cells["size_factor"] = torch.tensor(factor / factor.mean() * adata.X.sum(1).mean())
    return model.double(), cells


def draws(model: LDVAE, n: int, generator: torch.Generator) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Noise of library and latent as a model in single precision draws it; the library's comes first."""
    library = None if model.l_encoder is None else torch.empty(n, 1).normal_(generator=generator).double()
    return library, torch.empty(n, model.n_latent).normal_(generator=generator).double()


class Written:
    """Densities of one draw of each cell, by torch.distributions."""

    def __init__(self, model: LDVAE, cells: dict[str, torch.Tensor], generator: torch.Generator) -> None:
        x = cells["x"]
        noise_library, noise_z = draws(model, len(x), generator)
        seen = x.log1p() if model.log_variational else x
        z = model.z_encoder(seen)
        self.posteriors = [distributions.Normal(z.mean, z.variance.sqrt())]
        self.priors = [distributions.Normal(torch.zeros_like(z.mean), 1.0)]
        self.drawn = [z.mean + z.variance.sqrt() * noise_z]
        if model.l_encoder is not None:
            q = model.l_encoder(seen)
            rows = cells["batch_index"]
            self.posteriors.append(distributions.Normal(q.mean, q.variance.sqrt()))
            self.priors.append(
                distributions.Normal(model.library_log_means[rows, None], model.library_log_vars[rows, None].sqrt())
            )
            self.drawn.append(q.mean + q.variance.sqrt() * noise_library)
            library = self.drawn[1].exp()
        else:
            library = cells.get("size_factor", x.sum(1))[:, None]
        latent = self.drawn[0].softmax(1) if model.latent_distribution == "ln" else self.drawn[0]
        one_hot = torch.nn.functional.one_hot(cells["batch_index"], 2)
        u = torch.cat([latent, one_hot, cells["cont_covs"]], 1)
        mean = library * (u @ model.decoder.weight.T + model.decoder.bias).softmax(1)
        self.log_likelihood = self._counts(model, cells, u, mean).sum(1)

    def _counts(
        self, model: LDVAE, cells: dict[str, torch.Tensor], u: torch.Tensor, mean: torch.Tensor
    ) -> torch.Tensor:
        x, (block,), parts = cells["x"], model.blocks, dict(model.parts_of(0))
        if block.gene_likelihood == "poisson":
            return distributions.Poisson(mean).log_prob(x)
        if block.dispersion == "gene-cell":
            theta = (u @ parts["log_theta"].weight.T + parts["log_theta"].bias).exp()
        else:
            group = {"gene-batch": "batch_index", "gene-label": "labels"}.get(block.dispersion)
            theta = parts["log_theta"].table.exp()[0 if group is None else cells[group]]
        nb = distributions.NegativeBinomial(theta, probs=mean / (mean + theta)).log_prob(x)
        if block.gene_likelihood == "nb":
            return nb
        extra = torch.sigmoid(u @ parts["zero_inflation"].weight.T + parts["zero_inflation"].bias)
        return torch.where(x == 0, torch.log(extra + (1 - extra) * nb.exp()), torch.log1p(-extra) + nb)

    def elbo(self) -> torch.Tensor:
        kl = [distributions.kl_divergence(q, p).sum(1) for q, p in zip(self.posteriors, self.priors, strict=True)]
        return self.log_likelihood - torch.stack(kl).sum(0)

    def log_weights(self) -> torch.Tensor:
        total = self.log_likelihood
        for q, p, drawn in zip(self.posteriors, self.priors, self.drawn, strict=True):
            total = total + (p.log_prob(drawn) - q.log_prob(drawn)).sum(1)
        return total


@pytest.mark.parametrize("options", MODES)
def test_scores_by_torchs_distributions(options: dict[str, Any], fit_with: Callable[..., AnnData]) -> None:
    adata = fit_with(**options)
    model, cells = module_and_cells(adata)
    for score, value, n_samples in (
        (tl.elbo, lambda draw: draw.elbo(), 3),
        (tl.reconstruction_error, lambda draw: -draw.log_likelihood, 3),
        (tl.marginal_log_likelihood, lambda draw: draw.log_weights(), 1),
    ):
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            expected = torch.stack([value(Written(model, cells, generator)) for _ in range(n_samples)]).mean(0)
        got = per_cell(score, adata, n_samples=n_samples, rng=4)
        np.testing.assert_allclose(got, expected.numpy(), rtol=2e-4)


def test_marginal_is_the_mean_of_the_weights(fit_with: Callable[..., AnnData]) -> None:
    adata = fit_with()
    model, cells = module_and_cells(adata)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        weights = torch.stack([Written(model, cells, generator).log_weights() for _ in range(7)])
    expected = weights.logsumexp(0) - np.log(7)
    got = per_cell(tl.marginal_log_likelihood, adata, n_samples=7, rng=4)
    np.testing.assert_allclose(got, expected.numpy(), rtol=2e-4)


@pytest.mark.parametrize("options", MODES)
def test_log_weights_of_module_and_kernels(options: dict[str, Any], fit_with: Callable[..., AnnData]) -> None:
    model, cells = module_and_cells(fit_with(**options))
    with torch.no_grad():
        written = Written(model, cells, torch.Generator().manual_seed(5)).log_weights()
    single = {name: value.float() if value.is_floating_point() else value for name, value in cells.items()}
    model = model.float()
    with torch.no_grad():
        by_module = model.log_weights(**single, generator=torch.Generator().manual_seed(5))
    np.testing.assert_allclose(by_module.numpy(), written.numpy(), rtol=2e-4)

    x = sparse.csr_matrix(single.pop("x").numpy())
    pointers, genes = x.indptr.astype(np.int64), x.indices.astype(np.int32)
    rows = sparse_rows(pointers, genes, x.data, x.shape[1], log_variational=model.log_variational)
    annotations = {name: values.numpy() for name, values in single.items()}
    by_kernels = FusedElbo(model).log_weights(rows, annotations, torch.Generator().manual_seed(5))
    np.testing.assert_allclose(by_kernels, by_module.numpy(), rtol=2e-5)


def test_marginal_with_one_draw_has_the_elbo_as_its_expectation(scored: AnnData) -> None:
    n, n_copies = 30, 10
    copies = scored[np.tile(np.arange(scored.n_obs), n_copies)]
    elbo = score_of(tl.elbo, copies, n_samples=n)
    weights = [score_of(tl.marginal_log_likelihood, copies, n_samples=1, rng=i) for i in range(n)]
    assert abs(np.mean(weights) - elbo) < 5 * np.std(weights) / n**0.5
    assert np.std(weights) > 0


def test_marginal_grows_with_the_draws(scored: AnnData) -> None:
    values = [score_of(tl.marginal_log_likelihood, scored, n_samples=n) for n in (1, 5, 50, 500)]
    assert (np.diff(values) > 0).all()
    assert values[0] - score_of(tl.elbo, scored) < values[-1] - values[0]


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson", "bernoulli"])
def test_marginal_is_the_integral(
    likelihood: str, fit_quickly: Callable[..., None], reseal: Callable[[AnnData], None]
) -> None:
    """One factor and the library observed: an integral over a line, from the stored arrays."""
    adata = sc_ldvae.datasets.simulate(60, 6, 1, mean_library=60, rng=0)
    fit_quickly(adata, 1, gene_likelihood=likelihood, use_observed_lib_size=True, max_epochs=200)
    # So wide a posterior misses no part of the true one.
    adata.uns["ldvae"]["encoder"]["z"]["log_variance_bias"] += np.log(3)
    reseal(adata)
    known = record.read(adata)
    z = np.linspace(-7, 7, 2001)
    eta = known.decoder.log_proportion(z[:, None], np.zeros((len(z), 0)))
    prior = stats.norm.logpdf(z) + np.log(z[1] - z[0])
    expected = [
        logsumexp(prior + log_probability(known.decoder, x, x.sum() * softmax(eta, axis=1), z[:, None]))
        for x in adata.X.toarray().astype(np.float64)
    ]
    # Draws of copies of a cell are draws of the cell.
    n_copies = 25
    copies = adata[np.tile(np.arange(adata.n_obs), n_copies)].copy()
    copies.obs_names_make_unique()
    of_copies = per_cell(tl.marginal_log_likelihood, copies, n_samples=120).reshape(n_copies, -1)
    got = logsumexp(of_copies, axis=0) - np.log(n_copies)
    np.testing.assert_allclose(got, expected, atol=0.15)
    np.testing.assert_allclose(got.mean(), np.mean(expected), atol=0.01)


def log_probability(decoder: record.Decoder, x: np.ndarray, mean: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Log probability of one cell's counts at each z."""
    nothing = np.zeros((len(z), 0))
    parameters = decoder.natural(decoder.linear(z, nothing, np.zeros(len(z), dtype=np.int64)))
    if decoder.likelihood.name == "bernoulli":
        return stats.bernoulli.logpmf(x > 0, -np.expm1(-mean)).sum(1)
    if "theta" not in parameters:
        return stats.poisson.logpmf(x, mean).sum(1)
    theta = parameters["theta"]
    log_p = stats.nbinom.logpmf(x, theta, theta / (theta + mean))
    if "zero_inflation" in parameters:
        kept = 1 - parameters["zero_inflation"]
        log_p += np.log(kept)
        log_p = np.where(x == 0, np.logaddexp(log_p, np.log1p(-kept)), log_p)
    return log_p.sum(1)


@each_score
def test_values_of_cells_stand_in_obs(score: Callable[..., float], scored: AnnData) -> None:
    before = set(scored.obs)
    values = per_cell(score, scored)
    assert set(scored.obs) - before == {"score"}
    assert values.shape == (200,)
    assert len(np.unique(values)) > 150


@each_score
def test_nothing_is_written_unless_asked(
    score: Callable[..., float], scored: AnnData, unchanged: Callable[[AnnData], Any]
) -> None:
    with unchanged(scored):
        assert isinstance(score_of(score, scored), float)


@each_score
def test_seeds(score: Callable[..., float], scored: AnnData) -> None:
    assert score_of(score, scored) == score_of(score, scored, rng=0)
    assert score_of(score, scored, rng=3) == score_of(score, scored, rng=np.int64(3))
    assert score_of(score, scored, rng=3) != score_of(score, scored, rng=4)
    assert score_of(score, scored, rng=None) != score_of(score, scored, rng=None)
    generators = [np.random.default_rng(7), np.random.default_rng(7)]
    first = [score_of(score, scored, rng=generator) for generator in generators]
    assert first[0] == first[1]
    assert score_of(score, scored, rng=generators[0]) != first[0]


@each_score
def test_global_generators_are_left_alone(score: Callable[..., float], scored: AnnData) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002  what must not change
    score_of(score, scored, rng=None)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    np.testing.assert_equal(np.random.get_state(), before[2])  # noqa: NPY002  what must not change


@each_score
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda adata: adata[:, np.random.default_rng(0).permutation(60)].copy(), id="shuffled-genes"),
        pytest.param(lambda adata: adata[:], id="view"),
    ],
)
def test_object_may_be_arranged_otherwise(
    score: Callable[..., float], change: Callable[[AnnData], AnnData], scored: AnnData
) -> None:
    assert score_of(score, change(scored)) == score_of(score, scored)


def of_new_batch(adata: AnnData) -> None:
    adata.obs["batch"] = ["new", *adata.obs["batch"].astype(str)[1:]]


def log_values(adata: AnnData) -> None:
    adata.X = adata.X.log1p()


def no_x(adata: AnnData) -> None:
    del adata.X


def nothing(_: AnnData) -> None:
    """The object as it is."""


@each_score
@pytest.mark.parametrize(
    ("change", "options", "error", "sentence"),
    [
        pytest.param(of_new_batch, {}, ValueError, r"^obs\['batch'\] has the level 'new', which the fit", id="batch"),
        pytest.param(log_values, {}, ValueError, "^X holds .*not integers.*log-normalised", id="log"),
        pytest.param(no_x, {}, ValueError, "^X is empty.*layer=", id="no-x"),
        pytest.param(nothing, {"n_samples": 0}, ValueError, "^n_samples must be at least 1, but is 0", id="none"),
        pytest.param(nothing, {"n_samples": 10**300}, ValueError, "^n_samples must be at most 2,147,", id="most"),
        pytest.param(nothing, {"n_samples": 1.5}, TypeError, "^n_samples must be a whole number", id="half"),
        pytest.param(nothing, {"key_added": "a/b"}, ValueError, "^key_added='a/b' can't name", id="key_added"),
        pytest.param(nothing, {"key": "foo"}, ValueError, r"^uns\['foo'\] holds no fit", id="key"),
        pytest.param(nothing, {"layer": "foo"}, ValueError, "^layer='foo' is not in layers", id="layer"),
        pytest.param(nothing, {"modality": "rna"}, ValueError, "^modality='rna' was given", id="modality"),
    ],
)
def test_refused_and_nothing_changed(
    score: Callable[..., float],
    change: Callable[[AnnData], None],
    options: dict[str, Any],
    error: type[Exception],
    sentence: str,
    scored: AnnData,
    unchanged: Callable[[AnnData], Any],
) -> None:
    change(scored)
    with unchanged(scored), pytest.raises(error, match=sentence):
        score_of(score, scored, **{"key_added": "score"} | options)


@each_score
def test_missing_genes_are_refused(score: Callable[..., float], scored: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^3 of the 60 genes of the fit are not among var_names \('gene0', "):
        score_of(score, scored[:, 3:].copy())
