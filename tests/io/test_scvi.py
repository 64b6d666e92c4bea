from __future__ import annotations

import random
import re
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import read_h5ad
from scipy.special import softmax

import sc_ldvae
from sc_ldvae import io, record
from sc_ldvae._typing import UNSET
from sc_ldvae.inputs import for_likelihood

with warnings.catch_warnings():
    # Lightning, pyro and their kin warn as they are imported.
    warnings.simplefilter("ignore")
    pytest.importorskip("scvi")
    from scvi.model import SCVI, LinearSCVI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData
    from torch import Tensor

    Unchanged = Callable[[AnnData], AbstractContextManager[None]]

TOLERANCE = 1e-4
N_OBS, N_VARS, N_LATENT = 120, 40, 3
MODES = {
    "nb": {},
    "nb, batch": {"batch_key": "batch"},
    "zinb": {"gene_likelihood": "zinb"},
    "zinb, batch": {"gene_likelihood": "zinb", "batch_key": "batch"},
    "poisson": {"gene_likelihood": "poisson"},
    "poisson, batch": {"gene_likelihood": "poisson", "batch_key": "batch"},
    "gene-batch": {"dispersion": "gene-batch", "batch_key": "batch"},
    "gene-batch without batch": {"dispersion": "gene-batch"},
    "gene-label": {"dispersion": "gene-label", "labels_key": "label"},
    "gene-label, zinb, batch": {
        "dispersion": "gene-label",
        "labels_key": "label",
        "gene_likelihood": "zinb",
        "batch_key": "batch",
    },
    "labels that nothing needs": {"labels_key": "label"},
    "ln": {"latent_distribution": "ln"},
    "ln, zinb, batch": {"latent_distribution": "ln", "gene_likelihood": "zinb", "batch_key": "batch"},
    "observed library": {"use_observed_lib_size": True},
    "observed library, batch": {"use_observed_lib_size": True, "batch_key": "batch"},
    "counts to the encoder": {"log_variational": False},
    "three layers": {"n_layers_encoder": 3, "batch_key": "batch"},
    "no dropout": {"dropout_rate": 0.0},
    "no BatchNorm": {"use_batch_norm": False, "bias": True, "batch_key": "batch"},
    "neither BatchNorm nor bias": {"use_batch_norm": False, "gene_likelihood": "zinb"},
    "BatchNorm and bias": {"bias": True},
    "one batch": {"batch_key": "one"},
    "numbers for batches": {"batch_key": "number", "dispersion": "gene-batch"},
}
# Of these scvi-tools has none of its own, but what it has is as good.
EXPORTED = MODES | {"gene-cell of a Poisson": {"dispersion": "gene-cell", "gene_likelihood": "poisson"}}
exported_modes = pytest.mark.parametrize("arguments", EXPORTED.values(), ids=EXPORTED)
modes = pytest.mark.parametrize("arguments", MODES.values(), ids=MODES)


class Terms(NamedTuple):
    """Of the ELBO of each cell."""

    log_likelihood: np.ndarray
    kl_z: np.ndarray
    kl_library: np.ndarray


@contextmanager
def quiet() -> Iterator[None]:
    """What scvi-tools and Lightning say when they train and load is not for these tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def counts() -> AnnData:
    # Few counts: thousands throw an untrained encoder of raw counts far off, to means so small that the 1e-8 which
    # scvi-tools adds to them shows.
    adata = sc_ldvae.datasets.simulate(N_OBS, N_VARS, N_LATENT, n_batches=3, n_continuous=1, mean_library=30)
    everyone = np.arange(N_OBS)
    adata.obs["label"] = pd.Categorical(np.array(["T", "B", "NK"])[everyone % 3], categories=["T", "NK", "B"])
    adata.obs["number"] = everyone % 4
    adata.obs["one"] = "only"
    adata.obs["size"] = np.linspace(0.5, 2, N_OBS)
    adata.var["fitted"] = np.arange(N_VARS) % 5 > 0
    return adata


def fitted(adata: AnnData, **arguments: Any) -> AnnData:
    """A fit of ours to a copy."""
    defaults = {"n_hidden": 16, "max_epochs": 2, "progress": False}
    return sc_ldvae.tl.ldvae(adata, N_LATENT, copy=True, **defaults | arguments)


def trained(
    adata: AnnData,
    *,
    batch_key: str | None = None,
    labels_key: str | None = None,
    layer: str | None = None,
    max_epochs: int = 2,
    n_layers_encoder: int = 1,
    check_val_every_n_epoch: int | None = 1,
    n_test: int = 0,
    **arguments: Any,
) -> LinearSCVI:
    """A model of scvi-tools of a copy; the arguments are ours."""
    adata = adata.copy()
    if arguments.get("dispersion") == "gene-label":
        # LinearSCVI does not pass it on.
        arguments["n_labels"] = adata.obs[labels_key].nunique()
    # Its own split would be another one each time.
    n_train = adata.n_obs * 4 // 5
    split = np.split(np.random.default_rng(0).permutation(adata.n_obs), [n_train, adata.n_obs - n_test])
    with quiet(), torch.random.fork_rng():
        torch.manual_seed(0)
        LinearSCVI.setup_anndata(adata, batch_key=batch_key, labels_key=labels_key, layer=layer)
        model = LinearSCVI(adata, n_hidden=16, n_latent=N_LATENT, n_layers=n_layers_encoder, **arguments)
        if max_epochs:
            model.train(
                max_epochs,
                accelerator="cpu",
                enable_progress_bar=False,
                check_val_every_n_epoch=check_val_every_n_epoch,
                datasplitter_kwargs={"external_indexing": split},
            )
    return model


@torch.no_grad()
def our_terms(adata: AnnData, noise: Tensor | float = 0.0) -> Terms:
    """At the mean of the posterior, or so many standard deviations off: latent, then log library, n_obs x 4."""
    scorable = for_likelihood(adata, record.read(adata), UNSET)
    model, cells = scorable.model, scorable.cells.minibatch(scorable.everyone)
    x = torch.from_numpy(cells.counts.toarray())
    known = {name: torch.from_numpy(values) for name, values in cells.annotations.items()}
    noise = torch.as_tensor(noise).expand(adata.n_obs, N_LATENT + 1)
    posterior = model.encode(x)
    z = model.transform(posterior.z.mean + noise[:, :-1] * posterior.z.variance.sqrt())
    batch, labels = known.get("batch_index"), known.get("labels")
    if posterior.log_library is None:
        log_library, kl_library = x.sum(1).log()[:, None], torch.zeros(adata.n_obs)
    else:
        log_library = posterior.log_library.mean + noise[:, -1:] * posterior.log_library.variance.sqrt()
        kl_library = posterior.log_library.kl(*model.library_prior(batch))
    parameters = model.decode(z, model.covariates(batch), log_library, model.theta_group(batch, labels))
    log_likelihood = model.log_prob(x, parameters).sum(1)
    return Terms(*(term.double().numpy() for term in (log_likelihood, posterior.z.kl(0.0, 1.0), kl_library)))


@torch.no_grad()
def their_terms(model: LinearSCVI, noise: Tensor | float = 0.0) -> Terms:
    """The same of a model of scvi-tools and its own cells."""
    module, n_obs = model.module, model.adata.n_obs
    noise = torch.as_tensor(noise).expand(n_obs, N_LATENT + 1)
    with quiet():
        (tensors,) = model._make_data_loader(model.adata, batch_size=n_obs)
    inference = module.inference(**module._get_inference_input(tensors))
    qz, ql = inference["qz"], inference["ql"]
    inference["z"] = module.z_encoder.z_transformation(qz.loc + noise[:, :-1] * qz.scale)
    if ql is not None:
        inference["library"] = ql.loc + noise[:, -1:] * ql.scale
    generative = module.generative(**module._get_generative_input(tensors, inference))
    loss = module.loss(tensors, inference, generative)
    terms = (-loss.reconstruction_loss["reconstruction_loss"], *(loss.kl_local[f"kl_divergence_{x}"] for x in "zl"))
    return Terms(*(term.double().numpy() for term in terms))


def their_latent(model: LinearSCVI, adata: AnnData | None = None) -> np.ndarray:
    with quiet():
        mean, _ = model.get_latent_representation(adata, return_dist=True)
    return softmax(mean, 1) if model.module.latent_distribution == "ln" else mean


def assert_close(got: Terms, expected: Terms) -> None:
    for name, mine, other in zip(Terms._fields, got, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=TOLERANCE, atol=1e-6, err_msg=name)


def order_and_signs(mine: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which column of the other each of mine is, and its sign."""
    correlation = np.corrcoef(mine.T, other.T)[: mine.shape[1], mine.shape[1] :]
    order = np.abs(correlation).argmax(1)
    assert sorted(order) == list(range(mine.shape[1]))
    return order, np.sign(correlation[range(len(order)), order])


@contextmanager
def generators_stay() -> Iterator[None]:
    import scvi

    def states() -> list[Any]:
        numpy = np.random.get_state()  # noqa: NPY002  the global one is what this is about
        return [
            torch.get_rng_state().tolist(),
            numpy[1].tolist(),
            numpy[2:],
            random.getstate(),
            vars(scvi.settings).copy(),
        ]

    before = states()
    yield
    assert states() == before


# --- to scvi-tools


@exported_modes
def test_elbo_terms_of_the_exported_model(arguments: dict[str, Any], counts: AnnData) -> None:
    adata = fitted(counts, **arguments)
    noise = torch.randn(N_OBS, N_LATENT + 1, generator=torch.Generator().manual_seed(1))
    assert_close(their_terms(io.to_scvi(adata), noise), our_terms(adata, noise))


@exported_modes
def test_latent_and_loadings_of_the_exported_model(arguments: dict[str, Any], counts: AnnData) -> None:
    adata = fitted(counts, **arguments)
    model = io.to_scvi(adata)
    np.testing.assert_allclose(their_latent(model), adata.obsm["X_ldvae"], rtol=TOLERANCE, atol=1e-6)
    loadings = model.get_loadings()
    assert loadings.index.tolist() == adata.var_names.tolist()
    np.testing.assert_array_equal(loadings.to_numpy(), adata.varm["ldvae_loadings"])
    assert model.module.use_batch_norm is True


def test_exported_latent_is_what_scvi_calls_latent(counts: AnnData) -> None:
    adata = fitted(counts, batch_key="batch")
    latent = io.to_scvi(adata).get_latent_representation()
    np.testing.assert_allclose(latent, adata.obsm["X_ldvae"], rtol=TOLERANCE, atol=1e-6)


@pytest.mark.parametrize("name", ["nb, batch", "gene-label, zinb, batch", "ln", "observed library"])
def test_exported_model_can_be_saved_and_works(name: str, counts: AnnData, tmp_path: Path) -> None:
    model = io.to_scvi(fitted(counts, **MODES[name]))
    model.save(tmp_path / "model")
    with quiet():
        again = LinearSCVI.load(tmp_path / "model", adata=model.adata, accelerator="cpu")
        expression = again.get_normalized_expression(n_samples=2)
    np.testing.assert_allclose(expression.sum(axis=1), 1, rtol=1e-4)
    assert expression.columns.tolist() == counts.var_names.tolist()
    np.testing.assert_array_equal(again.get_loadings(), model.get_loadings())
    assert_close(their_terms(again), their_terms(model))
    assert again.validation_indices.tolist() == model.validation_indices.tolist()


def test_exported_model_counts_as_trained(counts: AnnData) -> None:
    adata = fitted(counts)
    model = io.to_scvi(adata)
    assert model.is_trained
    assert not model.module.training
    held_out = adata.obs["ldvae_held_out"].to_numpy()
    assert model.validation_indices.tolist() == np.flatnonzero(held_out).tolist()
    assert model.train_indices.tolist() == np.flatnonzero(~held_out).tolist()
    assert model.history["elbo_train"]["elbo_train"].tolist() == (-adata.uns["ldvae"]["history"]["elbo"]).tolist()
    np.testing.assert_allclose(float(model.get_elbo()), sc_ldvae.tl.elbo(adata, progress=False), rtol=0.02)


def test_exported_model_has_counts_of_the_fitted_genes(counts: AnnData) -> None:
    adata = counts.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.obsm["X_umap"] = np.zeros((N_OBS, 2))
    adata = fitted(adata, layer="counts", mask_var="fitted", batch_key="batch", key_added="foo")
    # The genes of the fit are found by name.
    adata = adata[:, ::-1].copy()
    model = io.to_scvi(adata, key="foo")
    genes = adata.uns["foo"]["genes"].tolist()
    assert model.adata.var_names.tolist() == genes
    np.testing.assert_array_equal(model.adata.X.toarray(), counts[:, genes].X.toarray())
    assert model.adata.obs["batch"].tolist() == counts.obs["batch"].tolist()
    assert "X_umap" in model.adata.obsm
    np.testing.assert_array_equal(model.get_loadings(), adata[:, genes].varm["foo"])
    np.testing.assert_allclose(their_latent(model), adata.obsm["foo"], rtol=TOLERANCE, atol=1e-6)


def test_exported_levels_are_those_of_the_fit(counts: AnnData) -> None:
    adata = fitted(counts, batch_key="number", labels_key="label", dispersion="gene-label")
    registered = io.to_scvi(adata).adata_manager
    assert registered.get_state_registry("batch").categorical_mapping.tolist() == [0, 1, 2, 3]
    assert registered.get_state_registry("labels").categorical_mapping.tolist() == ["T", "NK", "B"]


@pytest.mark.parametrize(("key", "gone"), [("batch", "batch1"), ("number", 2)], ids=["text", "numbers"])
def test_levels_without_cells_stay(key: str, gone: object, counts: AnnData) -> None:
    adata = fitted(counts, batch_key=key, dispersion="gene-batch")
    part = adata[adata.obs[key] != gone].copy()
    assert_close(their_terms(io.to_scvi(part)), our_terms(part))


def test_projected_cells_can_be_exported(counts: AnnData) -> None:
    reference, query = fitted(counts[:80].copy(), batch_key="batch"), counts[80:, ::-1].copy()
    sc_ldvae.tl.project(query, reference, progress=False)
    model = io.to_scvi(query)
    assert_close(their_terms(model), our_terms(query))
    assert len(model.train_indices) == 0


def test_export_of_a_modality(counts: AnnData) -> None:
    data = mudata.MuData({"rna": fitted(counts)})
    assert_close(their_terms(io.to_scvi(data, modality="rna")), our_terms(data["rna"]))


def test_export_leaves_everything_alone(counts: AnnData, unchanged: Unchanged) -> None:
    adata = fitted(counts, batch_key="batch")
    with unchanged(adata), generators_stay():
        model = io.to_scvi(adata)
        model.adata.X.data[:] = 0
        model.adata.obs["batch"] = "changed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"dispersion": "gene-cell"}, r"a dispersion per cell \(dispersion='gene-cell'\)", id="gene-cell"),
        pytest.param(
            {"batch_key": "batch", "categorical_covariate_keys": ["label"]},
            r"covariates beside the batch \('label'\)",
            id="categorical",
        ),
        pytest.param(
            {"continuous_covariate_keys": ["covariate1"]},
            r"covariates beside the batch \('covariate1'\)",
            id="continuous",
        ),
        pytest.param({"size_factor_key": "size"}, r"size factors \(obs\['size'\]\)", id="size factors"),
        pytest.param({"gene_likelihood": "bernoulli"}, "gene_likelihood='bernoulli'", id="bernoulli"),
    ],
)
def test_what_scvi_cannot_compute_is_not_exported(arguments: dict[str, Any], sentence: str, counts: AnnData) -> None:
    with pytest.raises(ValueError, match=rf"^The fit uns\['ldvae'\] has {sentence}, which LinearSCVI"):
        io.to_scvi(fitted(counts, **arguments))


def test_export_needs_fit_counts_and_genes(counts: AnnData) -> None:
    adata = fitted(counts)
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds no fit"):
        io.to_scvi(counts)
    with pytest.raises(ValueError, match=r"^1 of the 40 genes of the fit are not among var_names"):
        io.to_scvi(adata[:, 1:].copy())
    with pytest.raises(ValueError, match=r"^layer='raw' is not in layers"):
        io.to_scvi(adata, layer="raw")
    del adata.X
    with pytest.raises(ValueError, match=r"^X is empty"):
        io.to_scvi(adata)


@pytest.mark.parametrize("name", ["to_scvi", "from_scvi"])
def test_scvi_is_named_where_it_is_missing(name: str, counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    adata = fitted(counts)
    monkeypatch.setitem(sys.modules, "scvi", None)
    with pytest.raises(ImportError, match=rf"^io\.{name} needs scvi-tools: pip install 'sc-ldvae\[scvi\]'\.$"):
        io.to_scvi(adata) if name == "to_scvi" else io.from_scvi("folder", adata)


# --- from scvi-tools


@modes
def test_model_of_scvi_is_the_same_here(arguments: dict[str, Any], counts: AnnData) -> None:
    model, adata = trained(counts, **arguments), counts.copy()
    io.from_scvi(model, adata)
    assert_close(our_terms(adata), their_terms(model))
    mine, other = adata.obsm["X_ldvae"], their_latent(model)
    loadings = model.get_loadings().to_numpy()
    order, signs = order_and_signs(mine, other)
    np.testing.assert_allclose(mine, other[:, order] * signs, rtol=TOLERANCE, atol=1e-5)
    expected = (loadings - loadings.mean(0))[:, order] * signs
    np.testing.assert_allclose(adata.varm["ldvae_loadings"], expected, rtol=TOLERANCE, atol=1e-5)


@modes
def test_round_trip_of_a_model_of_scvi(arguments: dict[str, Any], counts: AnnData) -> None:
    model, adata = trained(counts, **arguments), counts.copy()
    io.from_scvi(model, adata)
    again = io.to_scvi(adata)
    assert_close(their_terms(again), their_terms(model))
    for name in ("elbo_train", "elbo_validation"):
        assert again.history[name][name].tolist() == model.history[name][name].astype(float).tolist()
    assert again.validation_indices.tolist() == sorted(model.validation_indices)


@modes
def test_round_trip_of_a_fit(arguments: dict[str, Any], counts: AnnData) -> None:
    adata = fitted(counts, **arguments)
    io.from_scvi(io.to_scvi(adata), adata, key_added="back")
    np.testing.assert_allclose(adata.obsm["back"], adata.obsm["X_ldvae"], rtol=TOLERANCE, atol=1e-5)
    np.testing.assert_allclose(adata.varm["back"], adata.varm["ldvae_loadings"], rtol=TOLERANCE, atol=1e-5)
    np.testing.assert_array_equal(adata.obs["back_held_out"], adata.obs["ldvae_held_out"])
    for name in ("explained_deviance", "total_explained_deviance", "elbo_held_out"):
        np.testing.assert_allclose(adata.uns["back"][name], adata.uns["ldvae"][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["nb, batch", "ln, zinb, batch", "observed library"])
def test_elbo_is_that_of_scvi(name: str, counts: AnnData) -> None:
    model, adata = trained(counts, **MODES[name]), counts.copy()
    io.from_scvi(model, adata)
    mine = [sc_ldvae.tl.elbo(adata, n_samples=1, rng=seed, progress=False) for seed in range(20)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = [float(model.get_elbo()) for _ in range(20)]
    error = np.sqrt((np.var(mine) + np.var(other)) / 20)
    assert abs(np.mean(mine) - np.mean(other)) < 4 * error


def test_entries_are_those_of_a_fit(counts: AnnData) -> None:
    arguments = {"batch_key": "batch", "labels_key": "label"}
    adata, expected = counts.copy(), fitted(counts, **arguments)
    io.from_scvi(trained(counts, **arguments), adata)
    for attribute in ("obs", "obsm", "varm", "uns", "var", "layers"):
        assert list(getattr(adata, attribute)) == list(getattr(expected, attribute)), attribute
    stored, reference = adata.uns["ldvae"], expected.uns["ldvae"]
    assert stored.keys() == reference.keys()
    for part in ("decoder", "library_prior", "covariates", "keys"):
        assert {name: np.shape(value) for name, value in stored[part].items()} == {
            name: np.shape(value) for name, value in reference[part].items()
        }
    asked = {"n_latent": 3, "n_hidden": 16, "dropout_rate": 0.1, "batch_key": "batch", "dispersion": "gene"}
    assert stored["params"] | asked == stored["params"]
    assert stored["params"].keys() <= reference["params"].keys()
    assert re.fullmatch(r"trained by scvi-tools \d+\.\d+\.\d+.*", stored["stop_reason"])
    assert adata.obs["ldvae_held_out"].sum() == 24


def test_what_works_on_a_fit_works_on_it(counts: AnnData, tmp_path: Path) -> None:
    adata = counts.copy()
    io.from_scvi(trained(counts, batch_key="batch", max_epochs=3), adata)
    adata.write_h5ad(tmp_path / "model.h5ad")
    again, query = read_h5ad(tmp_path / "model.h5ad"), counts[:50, ::-1].copy()
    sc_ldvae.tl.project(query, again, progress=False)
    np.testing.assert_array_equal(query.obsm["X_ldvae"], adata.obsm["X_ldvae"][:50])
    history = sc_ldvae.get.history(again)
    assert history.columns.tolist() == ["elbo", "elbo_held_out"]
    # The state that scvi-tools keeps is the last one, whichever was best.
    assert history.attrs["best_epoch"] == 3
    assert sc_ldvae.pl.history(again, show=False).get_xlabel() == "epoch"
    assert sc_ldvae.get.covariate_effects(again).shape == (N_VARS, 3)
    assert sc_ldvae.get.loadings(again).shape[0] > 0


@pytest.mark.parametrize("every", [2, None], ids=["every second epoch", "never"])
def test_validation_that_is_not_of_each_epoch_is_left_out(every: int | None, counts: AnnData) -> None:
    adata = counts.copy()
    io.from_scvi(trained(counts, check_val_every_n_epoch=every), adata)
    assert list(adata.uns["ldvae"]["history"]) == ["epoch", "elbo"]
    assert adata.obs["ldvae_held_out"].sum() == 24


def test_model_without_history(counts: AnnData, tmp_path: Path) -> None:
    model, adata = trained(counts), counts.copy()
    model.history_ = None
    io.from_scvi(model, adata)
    adata.write_h5ad(tmp_path / "model.h5ad")
    history = sc_ldvae.get.history(read_h5ad(tmp_path / "model.h5ad"))
    assert len(history) == 0
    assert sc_ldvae.pl.history(adata, show=False).get_xlabel() == "epoch"
    assert adata.uns["ldvae"]["n_epochs"] == adata.uns["ldvae"]["best_epoch"] == 0
    assert_close(their_terms(io.to_scvi(adata)), their_terms(model))


def test_genes_and_cells_are_found_by_name(counts: AnnData) -> None:
    counts = counts.copy()
    counts.layers["counts"] = counts.X.copy()
    arguments = {"batch_key": "batch", "dispersion": "gene-batch", "gene_likelihood": "zinb", "layer": "counts"}
    model = trained(counts[:, counts.var["fitted"]].copy(), **arguments)
    adata, shuffled = counts.copy(), counts[::-1, ::-1].copy()
    shuffled.X = shuffled.X.log1p()
    io.from_scvi(model, adata)
    io.from_scvi(model, shuffled)
    assert shuffled.uns["ldvae"]["genes"].tolist() == shuffled.var_names[shuffled.var["fitted"]].tolist()
    back = shuffled[counts.obs_names, counts.var_names]
    for mine, other in (
        (back.obsm["X_ldvae"], adata.obsm["X_ldvae"]),
        (back.varm["ldvae_loadings"], adata.varm["ldvae_loadings"]),
    ):
        np.testing.assert_allclose(mine, other, rtol=TOLERANCE, atol=1e-5)
    assert not adata.varm["ldvae_loadings"][~adata.var["fitted"].to_numpy()].any()
    assert back.obs["ldvae_held_out"].tolist() == adata.obs["ldvae_held_out"].tolist()
    assert np.flatnonzero(adata.obs["ldvae_held_out"]).tolist() == sorted(model.validation_indices)
    assert_close(Terms(*(term[::-1] for term in our_terms(shuffled))), their_terms(model))


def test_cells_that_scvi_neither_trained_on_nor_validated_are_held_out(counts: AnnData) -> None:
    model, adata = trained(counts, n_test=8), counts.copy()
    io.from_scvi(model, adata)
    expected = sorted([*model.validation_indices, *model.test_indices])
    assert np.flatnonzero(adata.obs["ldvae_held_out"]).tolist() == expected


def test_other_cells_are_not_marked(counts: AnnData) -> None:
    model = trained(counts, batch_key="batch")
    some, renamed = counts[:50].copy(), counts.copy()
    renamed.obs_names = [f"other{i}" for i in range(N_OBS)]
    for adata in (some, renamed):
        io.from_scvi(model, adata)
        assert not adata.obs["ldvae_held_out"].any()
        assert "elbo_held_out" not in adata.uns["ldvae"]
    # Fewer cells may have fewer batches.
    one = counts[counts.obs["batch"] == "batch2"].copy()
    io.from_scvi(model, one)
    assert one.uns["ldvae"]["batches"].tolist() == ["batch0", "batch1", "batch2"]


@pytest.mark.parametrize("as_text", [False, True], ids=["path", "text"])
@pytest.mark.parametrize("name", ["nb, batch", "gene-label", "numbers for batches", "observed library"])
def test_saved_models(name: str, as_text: bool, counts: AnnData, tmp_path: Path) -> None:
    counts = counts.copy()
    counts.layers["counts"] = counts.X.copy()
    model = trained(counts, layer="counts", **MODES[name])
    adata, expected = counts.copy(), counts.copy()
    model.save(tmp_path / "model")
    io.from_scvi(str(tmp_path / "model") if as_text else tmp_path / "model", adata)
    io.from_scvi(model, expected)
    np.testing.assert_array_equal(adata.obsm["X_ldvae"], expected.obsm["X_ldvae"])
    np.testing.assert_array_equal(adata.varm["ldvae_loadings"], expected.varm["ldvae_loadings"])
    assert adata.obs["ldvae_held_out"].tolist() == expected.obs["ldvae_held_out"].tolist()
    for name_ in ("elbo", "elbo_held_out"):
        assert adata.uns["ldvae"]["history"][name_].tolist() == expected.uns["ldvae"]["history"][name_].tolist()
    part = counts[:50].copy()
    io.from_scvi(tmp_path / "model", part)
    assert not part.obs["ldvae_held_out"].any()


def test_layer_can_be_another(counts: AnnData) -> None:
    model, adata = trained(counts), counts.copy()
    adata.layers["raw"] = adata.X.copy()
    adata.X = adata.X.log1p()
    io.from_scvi(model, adata, layer="raw")
    assert adata.uns["ldvae"]["params"]["layer"] == "raw"
    assert_close(our_terms(adata), their_terms(model))


def test_copy_modality_and_name(counts: AnnData, unchanged: Unchanged) -> None:
    model = trained(counts)
    with unchanged(counts):
        adata = io.from_scvi(model, counts, key_added="foo", copy=True)
    assert {"foo", "foo_variance"} <= set(adata.obsm)
    data = mudata.MuData({"rna": counts.copy()})
    assert io.from_scvi(model, data, modality="rna") is None
    np.testing.assert_array_equal(data["rna"].obsm["X_ldvae"], adata.obsm["foo"])


def test_import_leaves_everything_alone(counts: AnnData, tmp_path: Path, unchanged: Unchanged) -> None:
    model, adata = trained(counts, batch_key="batch"), counts.copy()
    model.save(tmp_path / "model")
    parameters = {name: value.clone() for name, value in model.module.state_dict().items()}
    with generators_stay(), unchanged(model.adata):
        io.from_scvi(model, adata)
        io.from_scvi(tmp_path / "model", adata)
    assert all(torch.equal(value, parameters[name]) for name, value in model.module.state_dict().items())


def without_genes(counts: AnnData) -> AnnData:
    return counts[:, 4:].copy()


def without_batch(counts: AnnData) -> AnnData:
    del counts.obs["batch"]
    return counts


def with_new_batch(counts: AnnData) -> AnnData:
    counts.obs["batch"] = ["new", *counts.obs["batch"].astype(str)[1:]]
    return counts


def with_logs(counts: AnnData) -> AnnData:
    counts.X = counts.X.log1p()
    return counts


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            without_genes,
            r"^data lacks 4 of the 40 genes of the model \('gene0', 'gene1', 'gene2', \.\.\.\)\. Pass the data",
            id="genes",
        ),
        pytest.param(without_batch, r"^The fit knows each cell's 'batch', but obs has no such column", id="batch"),
        pytest.param(with_new_batch, r"^obs\['batch'\] has the level 'new', which the fit has not seen", id="level"),
        pytest.param(with_logs, r"^X ", id="counts"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    change: Callable[[AnnData], AnnData], sentence: str, counts: AnnData, unchanged: Unchanged
) -> None:
    model, adata = trained(counts, batch_key="batch"), change(counts.copy())
    with pytest.raises(ValueError, match=sentence), unchanged(adata):
        io.from_scvi(model, adata)


def test_models_that_do_not_fit_are_refused(counts: AnnData, tmp_path: Path, unchanged: Unchanged) -> None:
    broken, other = trained(counts), counts.copy()
    broken.module.dispersion = "gene-cell"
    normal = trained(counts, gene_likelihood="normal")
    twice = counts.copy()
    twice.var_names = ["same", "same", *twice.var_names[2:]]
    with quiet():
        repeated = trained(twice)
        SCVI.setup_anndata(other)
        scvi = SCVI(other)
        scvi.save(tmp_path / "scvi")
        trained(counts, max_epochs=0).save(tmp_path / "untrained")
    adata = counts.copy()
    for model, error, sentence in (
        (trained(counts, max_epochs=0), ValueError, r"^model is not trained\. Call model\.train\(\) first\.$"),
        (tmp_path / "untrained", ValueError, r"^model is not trained\."),
        (scvi, TypeError, r"^model is a SCVI, but must be a LinearSCVI of scvi-tools or a folder with one\.$"),
        (tmp_path / "scvi", ValueError, r"holds a SCVI of scvi-tools, but model must be a LinearSCVI\.$"),
        (3, TypeError, r"^model is a int, but must be"),
        (tmp_path / "absent", FileNotFoundError, r"^There is no model of scvi-tools in .*absent: it has no file model"),
        (broken, ValueError, r"^model has dispersion='gene-cell', which LinearSCVI can't compute"),
        (normal, ValueError, r"^model has gene_likelihood='normal', but must have one of 'nb', 'zinb', 'poisson'\.$"),
        (repeated, ValueError, r"^model has several genes of the name 'same', so they can't be found in data\.$"),
    ):
        with pytest.raises(error, match=sentence), unchanged(adata):
            io.from_scvi(model, adata)
