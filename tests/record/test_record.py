"""The record: which ones are read, which are refused, and what works without counts."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sc_ldvae
from sc_ldvae import get, record, tl
from sc_ldvae.likelihoods import LIKELIHOODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    Change = Callable[[dict[str, Any]], object]

KEY = "ldvae"


@pytest.fixture(scope="module")
def raw() -> AnnData:
    adata = sc_ldvae.datasets.simulate(60, 20, 3, n_batches=2, n_continuous=1, rng=0)
    rng = np.random.default_rng(0)
    adata.obs["sex"] = rng.choice(["female", "male"], 60)
    adata.obs["label"] = rng.choice(["a", "b", "c"], 60)
    adata.obs["size_factor"] = rng.gamma(20, 0.05, 60)
    return adata


@pytest.fixture(scope="module")
def whole(raw: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    """A fit with all parts that a record may have, but a log theta per cell."""
    return fit_quickly(
        raw,
        copy=True,
        batch_key="batch",
        labels_key="label",
        categorical_covariate_keys=["sex"],
        continuous_covariate_keys=["covariate1"],
        gene_likelihood="zinb",
        dispersion="gene-label",
    )


@pytest.fixture
def adata(whole: AnnData) -> AnnData:
    return whole.copy()


@pytest.fixture
def by_size(raw: AnnData, fit_quickly: Callable[..., AnnData]) -> AnnData:
    return fit_quickly(raw, copy=True, size_factor_key="size_factor")


def lose(*path: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        *parents, last = path
        for name in parents:
            content = content[name]
        del content[last]

    return change


def cut(*path: str, rows: int | None = None) -> Change:
    """All but the first two columns, or rows, of an array."""

    def change(content: dict[str, Any]) -> None:
        *parents, last = path
        for name in parents:
            content = content[name]
        content[last] = content[last][rows:] if rows else content[last][..., 2:]

    return change


DAMAGE = [
    *(
        pytest.param(lose(part), f"'{part}' is missing", id=f"no-{part}")
        for part in ("keys", "params", "genes", "decoder", "encoder", "history", "explained_deviance")
    ),
    *(
        pytest.param(lose("decoder", part), f"'decoder/{part}' is missing", id=f"no-{part}")
        for part in ("loadings", "intercept", "covariate_effects", "log_theta")
    ),
    pytest.param(lose("keys", "library"), "'keys/library' is missing", id="no-key-of-the-library"),
    pytest.param(lose("decoder", "zero_inflation"), "'decoder/zero_inflation' is missing", id="no-zero-inflation"),
    pytest.param(
        lose("decoder", "zero_inflation", "covariate_effects"),
        "'decoder/zero_inflation/covariate_effects' is missing",
        id="no-effects-on-zero-inflation",
    ),
    pytest.param(lose("encoder", "z"), "'encoder/z' is missing", id="no-encoder-of-z"),
    pytest.param(lose("encoder", "library"), "'encoder/library' is missing", id="no-encoder-of-library"),
    pytest.param(
        lose("encoder", "z", "log_variance_bias"), "'encoder/z/log_variance_bias' is missing", id="no-variance-head"
    ),
    pytest.param(lose("library_prior"), "'library_prior' is missing", id="no-library-prior"),
    pytest.param(lose("library_prior", "log_variance"), "'library_prior/log_variance' is missing", id="no-variance"),
    pytest.param(lose("blocks", "start"), "'blocks/start' is missing", id="no-starts"),
    pytest.param(cut("blocks", "stop", rows=1), "'blocks/stop' has the shape (0,) in place of (1,)", id="no-stop"),
    pytest.param(cut("genes", rows=2), "'loadings_covariance' has the shape (20, 6) in place of (18, 6)", id="genes"),
    pytest.param(
        cut("decoder", "loadings"), "'decoder/loadings' has the shape (20, 1) in place of (20, 3)", id="loadings"
    ),
    pytest.param(
        cut("decoder", "intercept"), "'decoder/intercept' has the shape (18,) in place of (20,)", id="intercept"
    ),
    pytest.param(
        cut("decoder", "covariate_effects"),
        "'decoder/covariate_effects' has the shape (20, 3) in place of (20, 5)",
        id="covariate_effects",
    ),
    pytest.param(
        lose("covariates"), "'covariate_effects_se' has the shape (20, 5) in place of (20, 0)", id="covariates"
    ),
    pytest.param(
        cut("decoder", "log_theta", rows=1),
        "'decoder/log_theta' has the shape (2, 20) in place of (3, 20)",
        id="labels",
    ),
    pytest.param(
        cut("decoder", "zero_inflation", "intercept"),
        "'decoder/zero_inflation/intercept' has the shape (18,) in place of (20,)",
        id="zero-inflation",
    ),
    pytest.param(
        lambda content: content.update(rotation=np.eye(2)), "'rotation' has the shape (2, 2) in place of (3, 3)", id="T"
    ),
    pytest.param(
        lambda content: content.update(loadings_covariance=np.zeros((20, 3))),
        "'loadings_covariance' has the shape (20, 3) in place of (20, 6)",
        id="loadings_covariance",
    ),
    pytest.param(
        cut("encoder", "z", "weight_0"), "'encoder/z/weight_0' has the shape (128, 18) in place of (128, 20)", id="z"
    ),
    pytest.param(
        cut("encoder", "z", "mean_bias"), "'encoder/z/mean_bias' has the shape (1,) in place of (3,)", id="mean"
    ),
    pytest.param(
        cut("library_prior", "log_mean", rows=1),
        "'library_prior/log_mean' has the shape (1,) in place of (2,)",
        id="library-prior",
    ),
    pytest.param(
        lambda content: content.update(batches=content["batches"].reshape(2, 1)),
        "'batches' has the shape (2, 1) in place of (batches,)",
        id="text-in-columns",
    ),
    pytest.param(
        lambda content: content["params"].update(gene_likelihood="nb"),
        "'params/gene_likelihood' is another than in 'blocks'",
        id="likelihood",
    ),
    pytest.param(lose("params", "batch_key"), "'params/batch_key' is missing", id="no-key-of-the-batch"),
    pytest.param(
        lambda content: content["params"].update(batch_key="lane"),
        "'params/batch_key' is none of 'covariates/key'",
        id="key-of-the-batch",
    ),
    pytest.param(
        lambda content: content.update(genes=content["genes"][::-1]),
        "its values are not those that were written",
        id="reversed-genes",
    ),
    pytest.param(
        lambda content: content["decoder"].update(intercept=np.rint(content["decoder"]["intercept"]).astype(np.int64)),
        "'decoder/intercept' holds int64 in place of float32",
        id="integers",
    ),
    pytest.param(
        lambda content: content["decoder"].update(intercept=content["decoder"]["intercept"].astype(np.float16)),
        "'decoder/intercept' holds float16 in place of float32",
        id="halves",
    ),
    pytest.param(lose("checksum"), "'checksum' is missing", id="no-checksum"),
    pytest.param(
        lambda content: content.update(schema_version="five"), "'schema_version' is no number", id="version-in-words"
    ),
]


@pytest.mark.parametrize(("damage", "what"), DAMAGE)
def test_damaged_records_are_refused(damage: Change, what: str, adata: AnnData) -> None:
    damage(adata.uns[KEY])
    sentence = f"^uns\\['ldvae'\\] is damaged: {re.escape(what)}\\. Read the object from its file again, or fit again"
    for use in (record.read, lambda adata: tl.normalized_expression(adata, progress=False), get.loadings):
        with pytest.raises(ValueError, match=sentence):
            use(adata)


def test_variances_below_zero_are_refused_whatever_seals_them(
    adata: AnnData, reseal: Callable[[AnnData], None]
) -> None:
    adata.uns[KEY]["loadings_covariance"] = -adata.uns[KEY]["loadings_covariance"]
    with pytest.raises(ValueError, match=r"is damaged: 'loadings_covariance' holds variances below zero\. Read"):
        reseal(adata)


@pytest.mark.parametrize("part", ["loadings", "intercept", "covariate_effects"])
def test_damaged_log_theta_of_cells_is_refused(part: str, raw: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = fit_quickly(raw, copy=True, dispersion="gene-cell", batch_key="batch")
    record.read(adata)
    del adata.uns[KEY]["decoder"]["log_theta"][part]
    with pytest.raises(ValueError, match=f"is damaged: 'decoder/log_theta/{part}' is missing"):
        record.read(adata)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"gene_likelihood": "poisson"}, id="poisson"),
        pytest.param({"gene_likelihood": "poisson", "dispersion": "gene-cell"}, id="poisson-gene-cell"),
        pytest.param({"gene_likelihood": "zinb", "dispersion": "gene-cell"}, id="zinb-gene-cell"),
        pytest.param({"dispersion": "gene-batch"}, id="gene-batch-without-batches"),
        pytest.param({"batch_key": "one"}, id="one-batch"),
        pytest.param({"batch_key": "one", "dispersion": "gene-batch"}, id="gene-batch-of-one"),
        pytest.param({"use_observed_lib_size": True}, id="observed-library"),
        pytest.param({"size_factor_key": "size_factor"}, id="size-factor"),
        pytest.param({"n_layers_encoder": 3}, id="deep"),
        pytest.param({"n_hidden": np.int64(7)}, id="narrow"),
    ],
)
def test_sound_records_are_read(options: dict[str, Any], raw: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    adata = raw.copy()
    adata.obs["one"] = "only"
    fit_quickly(adata, **options)
    assert record.read(adata).n_latent == 3


@pytest.mark.parametrize(
    ("attribute", "key"), [("obsm", "X_ldvae"), ("obsm", "X_ldvae_variance"), ("varm", "ldvae_loadings")]
)
def test_entries_that_are_gone_are_named(attribute: str, key: str, adata: AnnData) -> None:
    del getattr(adata, attribute)[key]
    with pytest.raises(ValueError, match=rf"holds a fit, but its {attribute}\['{key}'\] is gone\. Put it back, or fit"):
        get.factors(adata)


@pytest.mark.parametrize("key", ["X_ldvae", "X_ldvae_variance"])
def test_latent_of_something_else_is_refused(key: str, adata: AnnData) -> None:
    adata.obsm[key] = np.zeros((60, 2), dtype=np.float32)
    with pytest.raises(ValueError, match=rf"^obsm\['{key}'\] has the shape \(60, 2\), but the fit has 3 factors"):
        tl.normalized_expression(adata, progress=False)


@pytest.mark.parametrize("version", [9, np.int64(99), "9", np.array([9.0])], ids=repr)
def test_newer_records_are_refused(version: object, adata: AnnData) -> None:
    adata.uns[KEY]["schema_version"] = version
    number = int(np.asarray(version).item())
    sentence = rf"^uns\['ldvae'\] was written in format {number}, this version reads up to 8\. Update sc-ldvae\.$"
    with pytest.raises(ValueError, match=sentence):
        tl.elbo(adata, progress=False)
    with pytest.raises(ValueError, match=sentence):
        tl.project(adata.copy(), adata, progress=False)


def in_format_2(adata: AnnData) -> AnnData:
    adata = adata.copy()
    adata.uns[KEY]["schema_version"] = 2
    adata.uns[KEY].pop("loadings_covariance", None)
    del adata.uns[KEY]["checksum"], adata.uns[KEY]["keys"]["loadings_se"], adata.uns[KEY]["keys"]["fit"]
    del adata.obs["ldvae_fit"]
    return adata


def in_format_1(adata: AnnData) -> AnnData:
    adata = in_format_2(adata)
    adata.uns[KEY]["schema_version"] = 1
    adata.uns[KEY].pop("size_factor_unit", None)
    return adata


@pytest.mark.parametrize("in_format", [in_format_1, in_format_2], ids=["1", "2"])
def test_older_formats_are_read(in_format: Callable[[AnnData], AnnData], adata: AnnData) -> None:
    old = in_format(adata)
    assert record.read(old).keys == record.Keys.named(None)
    assert tl.elbo(old, progress=False) == tl.elbo(adata, progress=False)
    pd.testing.assert_frame_equal(
        tl.normalized_expression(old, progress=False), tl.normalized_expression(adata, progress=False)
    )


def test_size_factors_of_format_1_get_their_unit_from_the_cells(raw: AnnData, by_size: AnnData) -> None:
    old = in_format_1(by_size)
    for some in (old, old[:7].copy()):
        unit = record.read(some).content["size_factor_unit"]
        assert unit == pytest.approx(by_size.uns[KEY]["size_factor_unit"], rel=1e-6)
    assert "size_factor_unit" not in old.uns[KEY]
    query = raw[:9].copy()
    tl.project(query, old, progress=False)
    np.testing.assert_allclose(query.obs["ldvae_library"], by_size.obs["ldvae_library"][:9], rtol=1e-6)
    assert query.uns[KEY]["schema_version"] == record.SCHEMA_VERSION
    assert query.uns[KEY]["size_factor_unit"] == pytest.approx(by_size.uns[KEY]["size_factor_unit"], rel=1e-6)


@pytest.mark.parametrize("column", ["size_factor", "ldvae_library"])
def test_size_factors_of_format_1_without_their_column(column: str, raw: AnnData, by_size: AnnData) -> None:
    old = in_format_1(by_size)
    del old.obs[column]
    assert get.loadings(old).shape == (20, 3)
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] was written by an older version, which did not store the"):
        tl.project(raw[:9].copy(), old, progress=False)


def test_unit_of_size_factors_is_that_of_the_mean_total(raw: AnnData, by_size: AnnData) -> None:
    expected = raw.X.sum() / raw.obs["size_factor"].sum()
    assert by_size.uns[KEY]["size_factor_unit"] == pytest.approx(expected, rel=1e-6)


DESIGNS = [
    pytest.param({}, id="none"),
    pytest.param({"batch": "batch"}, id="batch"),
    pytest.param({"batch": "one"}, id="batch-of-one-level"),
    pytest.param({"categorical": ("sex", "label")}, id="categories"),
    pytest.param({"continuous": ("covariate1",)}, id="number"),
    pytest.param({"batch": "batch", "categorical": ("sex",), "continuous": ("covariate1", "size_factor")}, id="all"),
]


@pytest.mark.parametrize("columns", DESIGNS)
def test_designs_survive_their_table(columns: dict[str, Any], raw: AnnData) -> None:
    obs = raw.obs.assign(one="only")
    batch = columns.get("batch")
    design = record.Design(
        None if batch is None else record.Categorical.fit(obs, batch, "batch_key"),
        tuple(record.Categorical.fit(obs, key, "c") for key in columns.get("categorical", ())),
        tuple(record.Continuous.fit(obs, key, "c") for key in columns.get("continuous", ())),
    )
    if not design.columns:
        assert design.matrix(obs).shape == (60, 0)
        return
    back = record.Design.from_table(design.table(), design.batch)
    assert back == design
    assert back.matrix(obs).shape == (60, len(design.columns))
    np.testing.assert_array_equal(back.matrix(obs), design.matrix(obs))


def affine(rng: np.random.Generator, n_columns: int) -> record.AffineMap:
    shapes = (5, 2), (5,), (5, n_columns)
    return record.AffineMap(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


@pytest.mark.parametrize("n_columns", [0, 3])
@pytest.mark.parametrize("theta", ["gene", "gene-cell"])
@pytest.mark.parametrize("gene_likelihood", LIKELIHOODS)
def test_decoders_survive_their_dict(gene_likelihood: str, theta: str, n_columns: int) -> None:
    rng, likelihood = np.random.default_rng(0), LIKELIHOODS[gene_likelihood]
    log_theta = {"gene": rng.normal(size=(2, 5)).astype(np.float32), "gene-cell": affine(rng, n_columns)}[theta]
    every = {"log_theta": log_theta, "zero_inflation": affine(rng, n_columns)}
    every["log_background"] = rng.normal(size=(1, 5)).astype(np.float32)
    parts = {part.name: every[part.name] for part in likelihood.parts}
    decoder = record.Decoder(affine(rng, n_columns), parts, likelihood)
    back = record.Decoder.from_dict(decoder.to_dict(), likelihood)
    latent, covariates, group = rng.normal(size=(7, 2)), rng.normal(size=(7, n_columns)), np.arange(7) % 2
    np.testing.assert_array_equal(
        back.log_proportion(latent, covariates), decoder.log_proportion(latent, covariates), strict=True
    )
    got, expected = (one.natural(one.linear(latent, covariates, group)) for one in (back, decoder))
    assert list(got) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)
    assert ("theta" in got) == (gene_likelihood not in {"poisson", "bernoulli"})
    assert ("zero_inflation" in got) == (gene_likelihood == "zinb")
    assert ("background" in got) == (gene_likelihood == "nb_background")


def frames(value: Any) -> list[pd.DataFrame | pd.Series]:
    if sparse.issparse(value):
        return [pd.DataFrame(value.toarray())]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [one if isinstance(one, pd.DataFrame | pd.Series) else pd.DataFrame(one.toarray()) for one in values]


def compared(adata: AnnData) -> pd.DataFrame:
    result = tl.differential_expression(adata, "label", copy=True, progress=False)
    return get.differential_expression(result)


NEED_NO_COUNTS: dict[str, Callable[[AnnData], Any]] = {
    "normalized_expression": lambda adata: tl.normalized_expression(adata, batch="mean", n_samples=2, progress=False),
    "sparse": lambda adata: tl.normalized_expression(adata, threshold=0.05, progress=False),
    "posterior_predictive": lambda adata: tl.posterior_predictive(adata, 2, progress=False),
    "differential_expression": compared,
    "loadings": get.loadings,
    "loadings_se": get.loadings_se,
    "rotated": lambda adata: get.loadings(adata, rotation="promax", per="sd"),
    "top_genes": get.top_genes,
    "factors": get.factors,
    "history": get.history,
    "covariate_effects": get.covariate_effects,
    "likelihood_parameters": get.likelihood_parameters,
    "latent_library_size": get.latent_library_size,
    "feature_correlation": get.feature_correlation,
}
NEED_COUNTS: dict[str, Callable[[AnnData], Any]] = {
    "elbo": lambda adata: tl.elbo(adata, progress=False),
    "reconstruction_error": lambda adata: tl.reconstruction_error(adata, progress=False),
    "marginal_log_likelihood": lambda adata: tl.marginal_log_likelihood(adata, progress=False),
    "project": lambda adata: tl.project(adata, adata, progress=False),
    "rotate": lambda adata: tl.rotate(adata, key_added="rotated"),
    "fit": lambda adata: tl.ldvae(adata, 3, progress=False),
}


@pytest.fixture(scope="module", params=["memory", ".h5ad", ".zarr"])
def slim(request: pytest.FixtureRequest, whole: AnnData, tmp_path_factory: pytest.TempPathFactory) -> AnnData:
    adata = whole.copy()
    del adata.X
    path = Path(tmp_path_factory.mktemp("slim")) / f"slim{request.param}"
    if request.param == ".h5ad":
        adata.write_h5ad(path)
        return ad.read_h5ad(path)
    if request.param == ".zarr":
        adata.write_zarr(path)
        return ad.read_zarr(path)
    return adata


@pytest.mark.parametrize("function", NEED_NO_COUNTS.values(), ids=NEED_NO_COUNTS)
def test_what_needs_no_counts_works_without(function: Callable[[AnnData], Any], slim: AnnData, whole: AnnData) -> None:
    got, expected = frames(function(slim)), frames(function(whole))
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected, strict=True):
        assert len(one)
        np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())
        assert one.index.tolist() == other.index.tolist()


@pytest.mark.parametrize("function", NEED_COUNTS.values(), ids=NEED_COUNTS)
def test_what_needs_counts_says_so(
    function: Callable[[AnnData], Any], slim: AnnData, unchanged: Callable[[AnnData], Any]
) -> None:
    with (
        unchanged(slim),
        pytest.raises(ValueError, match=r"^X is empty\. Name the layer that holds the counts, e\.g\."),
    ):
        function(slim)


NEED_NO_CELLS = {"loadings", "loadings_se", "top_genes", "factors", "history", "covariate_effects"}


@pytest.mark.parametrize("function", [name for name in NEED_NO_COUNTS | NEED_COUNTS if name != "fit"])
@pytest.mark.parametrize("view", [False, True], ids=["object", "view"])
def test_without_cells_there_is_what_is_known_of_genes(function: str, view: bool, whole: AnnData) -> None:
    with warnings.catch_warnings():
        # Anndata's, of an index without names.
        warnings.simplefilter("ignore")
        empty = whole[:0] if view else whole[:0].copy()
    use = (NEED_NO_COUNTS | NEED_COUNTS)[function]
    if function in NEED_NO_CELLS:
        of_cells = ["mean", "sd", "posterior_sd"] if function == "factors" else []
        got = use(empty)
        pd.testing.assert_frame_equal(got.drop(columns=of_cells), use(whole).drop(columns=of_cells))
        assert got[of_cells].isna().all(axis=None)
    else:
        with pytest.raises(ValueError, match=r"^data has no cells\.|has 0 groups"):
            use(empty)
