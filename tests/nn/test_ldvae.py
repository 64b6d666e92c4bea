from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import sc_ldvae
from sc_ldvae.nn import LDVAE, log_nb

LIKELIHOODS = ("nb", "zinb", "poisson")
DISPERSIONS = ("gene", "gene-batch", "gene-label", "gene-cell")
LATENTS = ("normal", "ln")
FLAGS = (False, True)
MODES = [
    pytest.param(
        {
            "gene_likelihood": likelihood,
            "dispersion": dispersion,
            "latent_distribution": latent,
            "use_observed_lib_size": observed,
            "use_batch_norm": norm,
            "bias": bias,
            # In turn: three layers go round with what is two or four times there, so each meets each.
            "n_layers_encoder": 1 + number % 3,
        },
        id=f"{likelihood}-{dispersion}-{latent}-{'observed' if observed else 'latent'}"
        f"{'-norm' if norm else ''}{'-bias' if bias else ''}-{1 + number % 3}",
    )
    for number, (likelihood, dispersion, latent, observed, norm, bias) in enumerate(
        product(LIKELIHOODS, DISPERSIONS, LATENTS, FLAGS, FLAGS, FLAGS)
    )
    # Half of them: each likelihood and dispersion meets all combinations of any three of the others.
    if ((latent == "ln") + observed + norm + bias) % 2 == 0
]


@pytest.fixture(scope="module")
def cells() -> dict[str, torch.Tensor]:
    adata = sc_ldvae.datasets.simulate(96, 30, 2, n_batches=2, n_continuous=1, mean_library=300, rng=0)
    generator = torch.Generator().manual_seed(0)
    return {
        "x": torch.tensor(adata.X.toarray()),
        "batch_index": torch.tensor(adata.obs["batch"].cat.codes.to_numpy(dtype=np.int64)),
        "labels": torch.randint(3, (96,), generator=generator),
        "cat_covs": torch.randint(4, (96, 1), generator=generator),
        "cont_covs": torch.tensor(adata.obs[["covariate1"]].to_numpy(dtype=np.float32)),
    }


def build(cells: dict[str, torch.Tensor], **options: object) -> LDVAE:
    generator = torch.Generator().manual_seed(1)
    sizes = {"n_batch": 2, "n_labels": 3, "n_cats_per_cov": [4], "n_continuous_cov": 1}
    model = LDVAE(30, n_latent=2, n_hidden=8, **sizes, **options, generator=generator)
    model.set_library_prior(cells["x"].sum(1), cells["batch_index"])
    return model


def log_theta_of(model: LDVAE) -> torch.nn.Parameter:
    """Groups x genes."""
    return dict(model.named_parts())["log_theta"].table


@pytest.mark.parametrize("options", MODES)
def test_every_mode_trains(options: dict[str, object], cells: dict[str, torch.Tensor]) -> None:
    model = build(cells, **options)
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        loss = -model(**cells, generator=generator).per_cell().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} is computed for nothing"


def test_elbo_is_assembled_from_torchs_distributions(cells: dict[str, torch.Tensor]) -> None:
    """The whole forward pass, written a second time with torch.distributions."""
    model = build(cells, dropout_rate=0.0).double().eval()
    cells = {name: value.double() if value.is_floating_point() else value for name, value in cells.items()}
    got = model(**cells, generator=torch.Generator().manual_seed(3))

    distributions, x = torch.distributions, cells["x"]
    z, log_library = model.encode(x)
    generator = torch.Generator().manual_seed(3)
    # The library is drawn first.
    noise = [torch.empty(96, n, dtype=torch.float64).normal_(generator=generator) for n in (1, 2)]
    library = (log_library.mean + log_library.variance.sqrt() * noise[0]).exp()
    drawn = z.mean + z.variance.sqrt() * noise[1]
    one_hot = [
        torch.nn.functional.one_hot(index, n) for index, n in ((cells["batch_index"], 2), (cells["cat_covs"][:, 0], 4))
    ]
    weight, bias = model.decoder.folded()
    rho = (torch.cat([drawn, *one_hot, cells["cont_covs"]], 1) @ weight.T + bias).softmax(1)
    theta = log_theta_of(model).exp()
    nb = distributions.NegativeBinomial(total_count=theta, probs=library * rho / (library * rho + theta))
    torch.testing.assert_close(got.log_likelihood, nb.log_prob(x).sum(1))
    batches = cells["batch_index"]
    prior = distributions.Normal(model.library_log_means[batches, None], model.library_log_vars[batches, None].sqrt())
    posterior = distributions.Normal(log_library.mean, log_library.variance.sqrt())
    torch.testing.assert_close(got.kl_library, distributions.kl_divergence(posterior, prior).sum(1))
    torch.testing.assert_close(got.per_cell(0.3), got.log_likelihood - 0.3 * got.kl_z - got.kl_library)


@pytest.mark.parametrize(("dispersion", "index", "n"), [("gene-batch", "batch_index", 2), ("gene-label", "labels", 3)])
def test_grouped_dispersion_takes_each_cells_own_row(
    dispersion: str, index: str, n: int, cells: dict[str, torch.Tensor]
) -> None:
    model = build(cells, dispersion=dispersion, use_observed_lib_size=True)
    log_theta = log_theta_of(model)
    assert log_theta.shape == (n, 30)
    with torch.no_grad():
        log_theta.normal_(generator=torch.Generator().manual_seed(4))
    group = model.theta_group(cells["batch_index"], cells["labels"])
    parameters = model.decode(
        torch.zeros(96, 2),
        model.covariates(cells["batch_index"], cells["cat_covs"], cells["cont_covs"]),
        torch.zeros(96, 1),
        group,
    )
    for level in range(n):
        own = cells[index] == level
        expected = log_nb(cells["x"][own], parameters.log_mu[own], log_theta[level][None])
        torch.testing.assert_close(model.log_prob(cells["x"], parameters)[own], expected)


def test_library_prior_is_that_of_each_batch(cells: dict[str, torch.Tensor]) -> None:
    model = build(cells)
    log_library = cells["x"].sum(1).log()
    for batch in range(2):
        own = log_library[cells["batch_index"] == batch]
        torch.testing.assert_close(model.library_log_means[batch], own.mean())
        torch.testing.assert_close(model.library_log_vars[batch], own.var(correction=0))


def test_size_factor_replaces_the_total(cells: dict[str, torch.Tensor]) -> None:
    model = build(cells, use_observed_lib_size=True).eval()
    by_total, by_factor = (
        model(**cells, **extra, generator=torch.Generator().manual_seed(0)).log_likelihood
        for extra in ({}, {"size_factor": cells["x"].sum(1)})
    )
    torch.testing.assert_close(by_total, by_factor)
    twice = model(**cells, size_factor=2 * cells["x"].sum(1), generator=torch.Generator().manual_seed(0))
    assert (twice.log_likelihood != by_total).all()


def test_get_loadings_are_the_slopes_of_the_decoder(cells: dict[str, torch.Tensor]) -> None:
    model = build(cells)
    model(**cells)
    model.eval()
    loadings = model.get_loadings()
    assert loadings.shape == (30, 2)
    u = torch.zeros(1, model.decoder.weight.shape[1])
    for k in range(2):
        step = u.clone()
        step[0, k] = 1
        slope = (model.decoder(step) - model.decoder(u)).detach().numpy()[0]
        np.testing.assert_allclose(loadings[:, k], slope, rtol=1e-4, atol=1e-5)


def test_building_and_running_leave_the_global_generator_alone(cells: dict[str, torch.Tensor]) -> None:
    before = torch.get_rng_state()
    model = build(cells)
    model(**cells, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        pytest.param({"n_latent": 0}, "n_latent must be at least 1", id="n_latent"),
        pytest.param({"n_hidden": 0}, "n_hidden must be at least 1", id="n_hidden"),
        pytest.param({"n_layers_encoder": 0}, "n_layers_encoder must be at least 1", id="n_layers"),
        pytest.param({"dropout_rate": 1.0}, "dropout_rate must be", id="dropout"),
        pytest.param({"dispersion": "cell"}, "dispersion='cell' is unknown", id="dispersion"),
        pytest.param({"gene_likelihood": "normal"}, "gene_likelihood='normal' is unknown", id="likelihood"),
        pytest.param({"latent_distribution": "beta"}, "latent_distribution='beta' is unknown", id="latent"),
        pytest.param({"dispersion": "gene-label"}, "needs labels", id="no-labels"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LDVAE(30, **options)


def test_missing_inputs_are_refused(cells: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="prior of the library is not set"):
        LDVAE(30)(cells["x"])
    with pytest.raises(ValueError, match="batch_index is missing"):
        LDVAE(30, n_batch=2, use_observed_lib_size=True)(cells["x"])
    with pytest.raises(ValueError, match="cat_covs and cont_covs"):
        LDVAE(30, n_continuous_cov=1, use_observed_lib_size=True)(cells["x"])
    with pytest.raises(ValueError, match="labels is missing"):
        LDVAE(30, n_labels=2, dispersion="gene-label", use_observed_lib_size=True)(cells["x"])
