"""Cells mapped into a fit: its own cells get what they have, others what its encoder says of their counts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from sc_ldvae import tl

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[AnnData], AnnData]

CELLS = ("X_ldvae", "X_ldvae_variance")
MODES = [
    pytest.param({}, id="default"),
    pytest.param({"gene_likelihood": "zinb", "dispersion": "gene-cell"}, id="zinb-gene-cell"),
    pytest.param({"gene_likelihood": "poisson"}, id="poisson"),
    pytest.param({"latent_distribution": "ln"}, id="ln"),
    pytest.param({"use_observed_lib_size": True}, id="observed-library"),
    pytest.param({"size_factor_key": "size_factor"}, id="size-factor"),
    pytest.param({"n_layers_encoder": 2, "log_variational": False}, id="deep-encoder-of-counts"),
]


def project(query: Any, reference: Any, **options: Any) -> Any:
    return tl.project(query, reference, **{"progress": False} | options)


def genes_with(values: np.ndarray, names: list[str]) -> Change:
    """Appends genes."""

    def change(adata: AnnData) -> AnnData:
        more = AnnData(sparse.csr_matrix(np.broadcast_to(values, (adata.n_obs, len(names)))), obs=adata.obs[[]])
        more.var_names = names
        return ad.concat([adata, more], axis=1, merge="first")

    return change


def shuffled_genes(adata: AnnData) -> AnnData:
    return adata[:, np.random.default_rng(0).permutation(adata.n_vars)].copy()


def as_counts(convert: Callable[[sparse.csr_matrix], Any]) -> Change:
    def change(adata: AnnData) -> AnnData:
        adata = adata.copy()
        adata.X = convert(adata.X)
        return adata

    return change


def without_genes(n: int) -> Change:
    return lambda adata: adata[:, n:].copy()


def log_normalised(adata: AnnData) -> AnnData:
    return as_counts(lambda X: X.multiply(1e4 / X.sum(1)).tocsr().log1p())(adata)


def without_x(adata: AnnData) -> AnnData:
    adata = adata.copy()
    del adata.X
    return adata


def renamed(adata: AnnData) -> AnnData:
    adata = adata.copy()
    adata.var_names = [f"ENSG{i}" for i in range(adata.n_vars)]
    return adata


def repeated_gene(adata: AnnData) -> AnnData:
    adata = adata.copy()
    adata.var_names = ["twin", "twin", *adata.var_names[2:]]
    return adata


@pytest.fixture(scope="module")
def raw(simulated: AnnData) -> AnnData:
    """The cells of the fits here, as they were before any. Change a copy."""
    adata = simulated.copy()
    adata.obs["size_factor"] = np.random.default_rng(0).gamma(20, 0.05, adata.n_obs)
    return adata


@pytest.fixture
def query(raw: AnnData) -> AnnData:
    return raw[:40].copy()


def assert_has_rows_of(query: AnnData, reference: AnnData) -> None:
    """The cells of `query`, found by name in `reference`, have to the byte what they have there."""
    own = reference[query.obs_names]
    for key in CELLS:
        np.testing.assert_array_equal(query.obsm[key], own.obsm[key], strict=True)
    np.testing.assert_array_equal(query.obs["ldvae_library"], own.obs["ldvae_library"])
    assert query.obs["ldvae_library"].dtype == own.obs["ldvae_library"].dtype


@pytest.mark.parametrize("options", MODES)
def test_own_cells_get_what_they_have(
    options: dict[str, Any], raw: AnnData, fit_quickly: Callable[..., AnnData]
) -> None:
    reference = fit_quickly(raw, batch_key="batch", copy=True, **options)
    for cells in (slice(None), slice(3, 4), np.random.default_rng(1).permutation(200)[:77]):
        query = raw[cells].copy()
        project(query, reference)
        assert_has_rows_of(query, reference)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(shuffled_genes, id="shuffled-genes"),
        pytest.param(genes_with(np.float32(7), ["more", "and-more"]), id="more-genes"),
        pytest.param(
            lambda adata: shuffled_genes(genes_with(np.float32(7), ["more"])(adata)), id="shuffled-and-more-genes"
        ),
        pytest.param(as_counts(lambda X: X.toarray()), id="dense"),
        pytest.param(as_counts(lambda X: np.asfortranarray(X.toarray())), id="dense-by-columns"),
        pytest.param(as_counts(lambda X: X.tocsc()), id="csc"),
        pytest.param(as_counts(lambda X: X.astype(np.int64)), id="int64"),
        pytest.param(as_counts(lambda X: X.toarray().astype(np.uint16)), id="uint16-dense"),
        pytest.param(as_counts(lambda X: X.astype(np.float64)), id="float64"),
        pytest.param(lambda adata: adata[:40], id="view"),
    ],
)
def test_form_of_the_query_does_not_matter(change: Change, query: AnnData, fitted: AnnData) -> None:
    changed = change(query)
    project(changed, fitted)
    assert_has_rows_of(changed, fitted)


def test_loadings_stand_at_the_genes_of_their_name(query: AnnData, fitted: AnnData) -> None:
    changed = shuffled_genes(genes_with(np.float32(1), ["more"])(query))
    project(changed, fitted)
    by_gene = pd.DataFrame(changed.varm["ldvae_loadings"], index=changed.var_names)
    np.testing.assert_array_equal(by_gene.loc[fitted.var_names], fitted.varm["ldvae_loadings"])
    assert not by_gene.loc["more"].any()


def test_all_cells_are_marked_as_held_out(query: AnnData, fitted: AnnData) -> None:
    project(query, fitted)
    assert query.obs["ldvae_held_out"].all()


@pytest.mark.parametrize("key_added", [None, "foo"])
def test_of_itself_keeps_the_marks(key_added: str | None, fitted: AnnData) -> None:
    adata = fitted.copy()
    project(adata, adata, key_added=key_added)
    marks = adata.obs[f"{key_added or 'ldvae'}_held_out"].to_numpy()
    np.testing.assert_array_equal(marks, fitted.obs["ldvae_held_out"], strict=True)
    assert_has_rows_of(adata, fitted)


def test_missing_genes_are_refused(query: AnnData, fitted: AnnData) -> None:
    sentence = r"^4 of the 60 genes of the fit are not among var_names \('gene0', 'gene1', 'gene2', \.\.\.\).*'zero'"
    with pytest.raises(ValueError, match=sentence):
        project(without_genes(4)(query), fitted)
    with pytest.raises(ValueError, match=r"^1 of the 60 genes .* \('gene0'\)\."):
        project(without_genes(1)(query), fitted)


def test_missing_genes_count_as_zero(query: AnnData, fitted: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    lacking = shuffled_genes(without_genes(4)(query))
    with caplog.at_level(logging.WARNING, "sc_ldvae"):
        project(lacking, fitted, missing_genes="zero")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("4 of the 60 genes of the fit are not among var_names ('gene")

    zeros = query.copy()
    zeros.X = sparse.hstack([sparse.csr_matrix((40, 4), dtype=np.float32), query.X[:, 4:]]).tocsr()
    project(zeros, fitted)
    assert_has_rows_of(lacking, zeros)
    assert (lacking.obsm["X_ldvae"] != fitted[:40].obsm["X_ldvae"]).any()


def test_no_gene_missing_no_warning(query: AnnData, fitted: AnnData, caplog: pytest.LogCaptureFixture) -> None:
    project(query, fitted, missing_genes="zero")
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        pytest.param(renamed, {}, "^60 of the 60 genes .*another gene set.*Ensembl", id="other-genes"),
        pytest.param(
            renamed, {"missing_genes": "zero"}, "^60 of the 60 genes .*another gene set", id="other-genes-as-zero"
        ),
        pytest.param(
            lambda adata: adata, {"missing_genes": "drop"}, "^missing_genes='drop' is unknown", id="missing_genes"
        ),
        pytest.param(log_normalised, {}, "^X holds .*not integers.*log-normalised", id="log-normalised"),
        pytest.param(without_x, {}, "^X is empty.*layer=", id="no-x"),
        pytest.param(
            repeated_gene,
            {},
            "^var_names are not unique .*'twin'",
            marks=pytest.mark.filterwarnings("ignore:Variable names are not unique"),
            id="repeated-gene",
        ),
        pytest.param(lambda adata: adata, {"layer": "raw"}, "^layer='raw' is not in layers", id="layer"),
        pytest.param(lambda adata: adata, {"key": "bar"}, r"^uns\['bar'\] holds no fit.*'ldvae'", id="key"),
        pytest.param(lambda adata: adata, {"key_added": "a/b"}, "^key_added='a/b' can't name", id="key_added"),
        pytest.param(
            as_counts(lambda X: sparse.csr_matrix(X.shape, dtype=np.float32)),
            {},
            "^40 of 40 cells have no counts in X over the 60 genes of the fit",
            id="no-counts",
        ),
    ],
)
def test_refused_and_nothing_changed(
    change: Change,
    options: dict[str, Any],
    sentence: str,
    query: AnnData,
    fitted: AnnData,
    unchanged: Callable[[AnnData], Any],
) -> None:
    changed = change(query)
    with unchanged(changed), unchanged(fitted), pytest.raises(ValueError, match=sentence):
        project(changed, fitted, **options)


def test_unfitted_reference_is_refused(query: AnnData, raw: AnnData, unchanged: Callable[[AnnData], Any]) -> None:
    with unchanged(query), pytest.raises(ValueError, match=r"^uns\['ldvae'\] holds no fit\..*Fits here: none"):
        project(query, raw)


def test_size_factors_are_needed(query: AnnData, raw: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    reference = fit_quickly(raw, size_factor_key="size_factor", copy=True)
    del query.obs["size_factor"]
    with pytest.raises(ValueError, match=r"^size_factor_key='size_factor' is not a column of obs"):
        project(query, reference)


@pytest.fixture
def of_new_batch(query: AnnData) -> AnnData:
    query.obs["batch"] = "new"
    return query


def test_cells_of_a_new_batch_are_mapped(of_new_batch: AnnData, fitted: AnnData) -> None:
    project(of_new_batch, fitted)
    assert_has_rows_of(of_new_batch, fitted)


@pytest.mark.parametrize("score", [tl.elbo, tl.reconstruction_error, tl.marginal_log_likelihood])
def test_cells_of_a_new_batch_are_not_scored(
    score: Callable[..., float], of_new_batch: AnnData, fitted: AnnData
) -> None:
    project(of_new_batch, fitted)
    with pytest.raises(ValueError, match=r"^obs\['batch'\] has the level 'new', which the fit has not seen.*'batch0'"):
        score(of_new_batch, progress=False)


def test_cells_of_a_new_batch_are_decoded_as_of_another(of_new_batch: AnnData, fitted: AnnData) -> None:
    project(of_new_batch, fitted)
    with pytest.raises(ValueError, match=r"^obs\['batch'\] has the level 'new', which the fit has not seen.*'batch0'"):
        tl.normalized_expression(of_new_batch, progress=False)
    for batch in ("batch1", "mean"):
        pd.testing.assert_frame_equal(
            tl.normalized_expression(of_new_batch, batch=batch, progress=False),
            tl.normalized_expression(fitted, batch=batch, progress=False).iloc[:40],
        )


def test_covariates_need_not_be_known(query: AnnData, fitted: AnnData) -> None:
    query.obs = query.obs[[]]
    project(query, fitted)
    assert_has_rows_of(query, fitted)
    with pytest.raises(ValueError, match=r"^The fit knows each cell's 'batch', but obs has no such column"):
        tl.normalized_expression(query, progress=False)
    with pytest.raises(ValueError, match=r"^The fit knows each cell's 'batch', but obs has no such column"):
        tl.elbo(query, progress=False)
    frame = tl.normalized_expression(query, batch="batch1", covariates={"covariate1": "mean"}, progress=False)
    assert frame.shape == (40, 60)


def test_layer(query: AnnData, raw: AnnData, fitted: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    query.layers["counts"], query.X = query.X.copy(), log_normalised(query).X
    project(query, fitted, layer="counts")
    assert_has_rows_of(query, fitted)

    in_layer = raw.copy()
    in_layer.layers["counts"], in_layer.X = in_layer.X.copy(), None
    reference = fit_quickly(in_layer, layer="counts", copy=True)
    project(query, reference)
    assert_has_rows_of(query, reference)
    plain = raw[:40].copy()
    project(plain, reference, layer=None)
    assert_has_rows_of(plain, reference)


def test_keys(query: AnnData, raw: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    reference = fit_quickly(raw, key_added="foo", copy=True)
    project(query, reference, key="foo")
    assert set(query.obsm) == {"true_latent", "foo", "foo_variance"}
    project(query, reference, key="foo", key_added="bar")
    for suffix in ("", "_variance"):
        np.testing.assert_array_equal(query.obsm[f"bar{suffix}"], reference[:40].obsm[f"foo{suffix}"])
    np.testing.assert_array_equal(query.varm["bar"], reference.varm["foo"])
    assert {"bar_library", "bar_held_out"} <= set(query.obs)
    assert tl.elbo(query, key="bar", progress=False) == tl.elbo(query, key="foo", progress=False)


def test_copy(query: AnnData, fitted: AnnData, unchanged: Callable[[AnnData], Any]) -> None:
    with unchanged(query):
        result = project(query, fitted, copy=True)
    assert_has_rows_of(result, fitted)
    assert project(query, fitted) is None


@pytest.mark.parametrize("of_reference", [False, True], ids=["plain-reference", "mudata-reference"])
@pytest.mark.parametrize("of_query", [False, True], ids=["plain-query", "mudata-query"])
@pytest.mark.parametrize("copy", [False, True], ids=["in-place", "copy"])
def test_mudata(of_query: bool, of_reference: bool, copy: bool, query: AnnData, fitted: AnnData) -> None:
    data = mudata.MuData({"rna": query}) if of_query else query
    reference = mudata.MuData({"rna": fitted.copy()}) if of_reference else fitted
    result = project(data, reference, modality="rna" if of_query or of_reference else None, copy=copy) or data
    assert type(result) is type(data)
    assert_has_rows_of(result["rna"] if of_query else result, fitted)
    assert ("X_ldvae" in query.obsm) != copy


def test_mudata_needs_a_modality(query: AnnData, fitted: AnnData) -> None:
    with pytest.raises(ValueError, match=r"^data is a MuData, and this is asked of one"):
        project(mudata.MuData({"rna": query}), fitted)


def test_reference_needs_no_counts(query: AnnData, fitted: AnnData) -> None:
    project(query, without_x(fitted))
    assert_has_rows_of(query, fitted)


def test_reference_may_have_lost_genes_and_cells(query: AnnData, fitted: AnnData) -> None:
    project(query, fitted[:5, :7].copy())
    assert_has_rows_of(query, fitted)


def test_reference_is_left_alone_and_shares_nothing(
    query: AnnData, fitted: AnnData, unchanged: Callable[[AnnData], Any]
) -> None:
    reference = fitted.copy()
    with unchanged(reference):
        project(query, reference)
        for value in (query.obsm["X_ldvae"], query.varm["ldvae_loadings"], *arrays_in(query.uns["ldvae"])):
            if value.dtype.kind == "f":
                value[...] = 7
        query.uns["ldvae"]["params"]["dispersion"] = "none"


def arrays_in(record: dict[str, Any]) -> list[np.ndarray]:
    return [
        array
        for value in record.values()
        for array in (arrays_in(value) if isinstance(value, dict) else [value])
        if isinstance(array, np.ndarray)
    ]


def test_repeated_projection_changes_nothing(
    query: AnnData, fitted: AnnData, unchanged: Callable[[AnnData], Any]
) -> None:
    project(query, fitted)
    with unchanged(query):
        project(query, fitted)


def test_query_is_a_reference_itself(raw: AnnData, query: AnnData, fitted: AnnData) -> None:
    project(query, fitted)
    others = raw[40:].copy()
    project(others, query)
    assert_has_rows_of(others, fitted)


def test_query_and_reference_together(raw: AnnData, fit_quickly: Callable[..., AnnData]) -> None:
    reference, query = raw[:150].copy(), raw[150:].copy()
    fit_quickly(reference, batch_key="batch")
    project(query, reference)
    both = ad.concat([reference, query], merge="same", uns_merge="same")
    assert both.obs["ldvae_held_out"].dtype == bool
    values = tl.normalized_expression(both, progress=False)
    pd.testing.assert_frame_equal(values.iloc[:150], tl.normalized_expression(reference, progress=False))
    pd.testing.assert_frame_equal(values.iloc[150:], tl.normalized_expression(query, progress=False))
    for adata in (both, reference, query):
        tl.elbo(adata, key_added="elbo", n_samples=400, progress=False)
    expected = pd.concat([reference.obs["elbo"], query.obs["elbo"]])
    # Draws differ with the position of the cell.
    np.testing.assert_allclose(both.obs["elbo"].mean(), expected.mean(), rtol=2e-3)


@pytest.mark.parametrize("options", MODES)
def test_held_out_cells_projected_have_the_held_out_elbo(
    options: dict[str, Any], pbmc: AnnData, fit_quickly: Callable[..., None]
) -> None:
    pbmc.obs["size_factor"] = pbmc.obs["n_counts"] / 1000
    pbmc.obs["train"] = np.random.default_rng(0).random(pbmc.n_obs) < 0.8
    raw = pbmc.copy()
    fit_quickly(pbmc, train_size="train", **options)
    reference = pbmc[pbmc.obs["train"]].copy()
    query = raw[~raw.obs["train"]].copy()
    project(query, reference)
    assert_has_rows_of(query, pbmc)
    assert tl.elbo(query, progress=False) == pytest.approx(pbmc.uns["ldvae"]["elbo_held_out"], rel=1e-9)
