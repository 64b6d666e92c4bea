"""Joint fits of several modalities, some of which cells lack: bits, files, refusals, and all that follows a fit."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax

from sc_ldvae import get, record, tl
from sc_ldvae.counts import Cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mudata import MuData

N_OBS, N_LATENT = 180, 3
WIDTHS = {"rna": 40, "prot": 30, "atac": 50}
LIKELIHOODS = {"rna": "nb", "prot": "nb_background", "atac": "bernoulli"}
QUIET: dict[str, Any] = {"progress": False}
FITTING: dict[str, Any] = {"modalities": LIKELIHOODS, "max_epochs": 3, "batch_size": 40, "n_hidden": 16, **QUIET}
LATENT, VARIANCE, LOADINGS = "X_ldvae", "X_ldvae_variance", "ldvae_loadings"


def modalities(rng: np.random.Generator) -> dict[str, ad.AnnData]:
    """Counts of all cells in all modalities."""
    z, found = rng.normal(size=(N_OBS, N_LATENT)), {}
    names = np.array([f"cell{i}" for i in range(N_OBS)])
    for name, width in WIDTHS.items():
        x = z @ rng.normal(0, 0.7, (N_LATENT, width)) + rng.normal(0, 1, width)
        if name == "prot":
            counts = rng.poisson(3 + np.exp(x + 2))
        else:
            mean = rng.uniform(300, 900, (N_OBS, 1)) * softmax(x, 1)
            counts = rng.poisson(mean if name == "rna" else mean / 25)
        adata = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=pd.DataFrame(index=names))
        adata.var_names = [f"{name}{i}" for i in range(width)]
        found[name] = adata
    return found


def together(parts: Mapping[str, ad.AnnData]) -> MuData:
    """A MuData of them, with batches that it alone knows."""
    mdata = mudata.MuData({name: part.copy() for name, part in parts.items()})
    number = mdata.obs_names.str.slice(4).astype(int)
    mdata.obs["batch"] = pd.Categorical(np.where(number % 3 == 0, "a", "b"))
    return mdata


@pytest.fixture(scope="module")
def complete() -> dict[str, ad.AnnData]:
    """Change copies."""
    parts = modalities(np.random.default_rng(0))
    # No peak is open.
    assert (np.asarray(parts["atac"].X.sum(1)) > 0).all()
    return parts


@pytest.fixture(scope="module")
def parts(complete: dict[str, ad.AnnData]) -> dict[str, ad.AnnData]:
    """Some cells lack a modality: proteins and peaks about a fifth, expression a few."""
    rng = np.random.default_rng(1)
    has = {"rna": np.arange(N_OBS) < N_OBS - 8, "atac": rng.random(N_OBS) < 0.75}
    has["prot"] = (rng.random(N_OBS) < 0.8) | ~has["rna"]
    return {name: part[has[name]].copy() for name, part in complete.items()}


@pytest.fixture(scope="module")
def once(parts: dict[str, ad.AnnData]) -> MuData:
    """Shared by all tests: change a copy."""
    mdata = together(parts)
    tl.ldvae(mdata, N_LATENT, batch_key="batch", **FITTING)
    return mdata


@pytest.fixture
def fitted(once: MuData) -> MuData:
    return once.copy()


def contents(data: Any) -> dict[str, Any]:
    """All that an object holds, by the path to it, in a form that compares to the byte."""
    if isinstance(data, (ad.AnnData, mudata.MuData)):
        names = ("obs", "var", "obsm", "varm", "uns", *(("X", "layers") if isinstance(data, ad.AnnData) else ("mod",)))
        return nested({name: getattr(data, name) for name in names})
    if isinstance(data, pd.DataFrame):
        return nested({"index": data.index, **{str(name): data[name] for name in data}})
    if isinstance(data, Mapping):
        return nested(data)
    if sparse.issparse(data):
        return nested({name: getattr(data, name) for name in ("data", "indices", "indptr")})
    values = np.asarray(data)
    content = list(map(repr, values.ravel().tolist())) if values.dtype.hasobject else values.tobytes()
    return {"": (str(getattr(data, "dtype", type(data))), values.shape, content)}


def nested(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}/{path}": value for name, part in parts.items() for path, value in contents(part).items()}


def assert_same_fit(one: Any, other: Any) -> None:
    """Of the same cells and genes."""
    for attribute, keys in (("obsm", (LATENT, VARIANCE)), ("varm", (LOADINGS, f"{LOADINGS}_se"))):
        for key in keys:
            np.testing.assert_array_equal(getattr(one, attribute)[key], getattr(other, attribute)[key])
    assert contents(one.uns["ldvae"]) == contents(other.uns["ldvae"])


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of the columns, matched."""
    one, other = (values / np.linalg.norm(values, axis=0) for values in (one, other))
    found = np.abs(one.T @ other)
    return found[linear_sum_assignment(-found)]


# The fit.


@pytest.mark.parametrize("name", ["rna", "prot"])
def test_a_joint_fit_of_one_modality_is_a_fit_of_it(name: str, complete: dict[str, ad.AnnData]) -> None:
    alone, joint = (mudata.MuData({key: complete[key].copy() for key in ("rna", "prot")}) for _ in range(2))
    asked = {**FITTING, "gene_likelihood": LIKELIHOODS[name]}
    del asked["modalities"]
    tl.ldvae(alone, N_LATENT, modality=name, **asked)
    tl.ldvae(joint, N_LATENT, **FITTING | {"modalities": {name: LIKELIHOODS[name]}})
    for key in (LATENT, VARIANCE):
        np.testing.assert_array_equal(joint.mod[name].obsm[key], alone.mod[name].obsm[key])
    np.testing.assert_array_equal(joint.mod[name].varm[LOADINGS], alone.mod[name].varm[LOADINGS])
    np.testing.assert_array_equal(joint.obsm[LATENT], alone.mod[name].obsm[LATENT])
    one, other = (mdata.mod[name].uns["ldvae"] for mdata in (alone, joint))
    assert contents(one["decoder"]) == contents(other["decoder"])
    assert contents(one["encoder"]) == contents(other["encoder"])
    assert contents(one["loadings_covariance"]) == contents(other["loadings_covariance"])
    assert contents(one["history"]) == contents(other["history"])
    assert one["elbo_held_out"] == other["elbo_held_out"]


def test_what_is_left_behind(once: MuData) -> None:
    n_genes = sum(WIDTHS.values())
    assert once.obsm[LATENT].shape == once.obsm[VARIANCE].shape == (N_OBS, N_LATENT)
    assert once.varm[LOADINGS].shape == (n_genes, N_LATENT)
    assert record.read_joint(once).modalities == list(LIKELIHOODS)
    stop = 0
    for name, adata in once.mod.items():
        start, stop = stop, stop + adata.n_vars
        rows = once.obs_names.get_indexer(adata.obs_names)
        np.testing.assert_array_equal(adata.obsm[LATENT], once.obsm[LATENT][rows])
        np.testing.assert_array_equal(adata.varm[LOADINGS], once.varm[LOADINGS][start:stop])
        np.testing.assert_array_equal(adata.obs["ldvae_held_out"], once.obs["ldvae_held_out"].to_numpy()[rows])
        assert ("ldvae_library" in adata.obs) == (name != "prot")
    # Who shows less is known less well: the posterior of a cell with one more modality is narrower.
    n_shown = sum(once.obs_names.isin(adata.obs_names).astype(int) for adata in once.mod.values())
    variance = once.obsm[VARIANCE].mean(1)
    assert variance[n_shown == 3].mean() < variance[n_shown == 1].mean() < 1


def test_other_modalities_do_not_matter(once: MuData, parts: dict[str, ad.AnnData]) -> None:
    other = ad.AnnData(np.ones((N_OBS - 8, 4), np.float32), obs=parts["rna"].obs[[]])
    other.var_names = [f"other{i}" for i in range(4)]
    mdata = together({**parts, "other": other})
    tl.ldvae(mdata, N_LATENT, batch_key="batch", **FITTING)
    np.testing.assert_array_equal(mdata.obsm[LATENT], once.obsm[LATENT])
    for name in LIKELIHOODS:
        assert_same_fit(mdata.mod[name], once.mod[name])
    assert not mdata.varm[LOADINGS][-4:].any()
    np.testing.assert_array_equal(
        np.isnan(mdata.varm[f"{LOADINGS}_se"]).all(1), np.arange(mdata.n_vars) >= mdata.n_vars - 4
    )
    assert not mdata.mod["other"].uns


def test_cells_are_matched_by_their_names(once: MuData, parts: dict[str, ad.AnnData]) -> None:
    order = np.random.default_rng(3).permutation(parts["atac"].n_obs)
    mdata = together({**parts, "atac": parts["atac"][order]})
    assert mdata.obs_names.equals(once.obs_names)
    tl.ldvae(mdata, N_LATENT, batch_key="batch", **FITTING)
    assert_same_fit(mdata, once)
    np.testing.assert_array_equal(mdata.mod["atac"].obsm[LATENT], once.mod["atac"].obsm[LATENT][order])


def test_the_order_of_modalities_does_not_choose_the_factors(complete: dict[str, ad.AnnData]) -> None:
    loadings = []
    for names in (list(WIDTHS), list(WIDTHS)[::-1]):
        mdata = together({name: complete[name] for name in names})
        asked = {name: LIKELIHOODS[name] for name in names}
        tl.ldvae(mdata, N_LATENT, modalities=asked, n_hidden=16, batch_size=64, **QUIET)
        loadings.append(np.vstack([mdata.mod[name].varm[LOADINGS] for name in WIDTHS]))
    assert cosines(*loadings).min() > 0.99


# What reads fits.


def written(mdata: MuData, path: Path) -> MuData:
    """It as it comes back from a file."""
    if path.suffix == ".zarr":
        mdata.write_zarr(path)
        return mudata.read_zarr(path)
    mdata.write_h5mu(path)
    return mudata.read_h5mu(path)


# Of what mudata asks anndata to write.
@pytest.mark.filterwarnings("ignore:This setting will be removed")
@pytest.mark.parametrize("suffix", [".h5mu", ".zarr"])
def test_files_keep_it(suffix: str, once: MuData, tmp_path: Path) -> None:
    back = written(once, tmp_path / f"fit{suffix}")
    before, after = record.read_joint(once), record.read_joint(back)
    assert after.modalities == before.modalities
    assert contents(after.content) == contents(before.content)
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(back.obsm[LATENT], once.obsm[LATENT])
    again = tl.project(back, back, key_added="again", copy=True, **QUIET)
    np.testing.assert_array_equal(again.obsm["again"], once.obsm[LATENT])
    np.testing.assert_array_equal(again.obsm["again_variance"], once.obsm[VARIANCE])
    assert tl.elbo(back, **QUIET) == tl.elbo(once, **QUIET)


SECOND = """
import sys
import mudata, numpy as np, torch
from sc_ldvae import get, tl

torch.set_num_threads(1)

def answers(mdata):
    quiet = {"progress": False}
    projected = tl.project(mdata, mdata, key_added="again", copy=True, **quiet)
    measured = tl.explained_deviance(mdata, copy=True, **quiet)
    rotated = tl.rotate(mdata, "modality", key_added="rotated", copy=True)
    return {
        "elbo": np.array(tl.elbo(mdata, **quiet)),
        "latent": projected.obsm["again"],
        "expression": tl.normalized_expression(mdata, modality="prot", **quiet).to_numpy(),
        "explained": get.explained_deviance(measured).to_numpy(dtype=float),
        "correlation": get.feature_correlation(mdata).to_numpy(),
        "rotated": rotated.obsm["rotated"],
        "shares": get.modalities(rotated, key="rotated").to_numpy(),
    }

if __name__ == "__main__":
    np.savez(sys.argv[2], **answers(mudata.read_h5mu(sys.argv[1])))
"""


def test_a_second_process_answers_the_same(once: MuData, tmp_path: Path) -> None:
    script, fit, found = tmp_path / "second.py", tmp_path / "fit.h5mu", tmp_path / "answers.npz"
    script.write_text(SECOND)
    once.write_h5mu(fit)
    subprocess.run([sys.executable, script, fit, found], check=True, capture_output=True)
    expected = runpy.run_path(str(script))["answers"](once)
    with np.load(found) as after:
        assert set(after) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(after[name], values, rtol=1e-6, atol=1e-9, err_msg=name)


def test_projected_by_what_a_cell_has(once: MuData, complete: dict[str, ad.AnnData]) -> None:
    rna = complete["rna"][:60]
    without = tl.project(mudata.MuData({"rna": rna.copy()}), once, copy=True, **QUIET)
    alone = tl.project(rna.copy(), once, modality="rna", copy=True, **QUIET)
    np.testing.assert_array_equal(without.obsm[LATENT], alone.obsm[LATENT])
    np.testing.assert_array_equal(without.obsm[VARIANCE], alone.obsm[VARIANCE])
    np.testing.assert_array_equal(without.mod["rna"].obsm[LATENT], alone.obsm[LATENT])
    # A cell of the fit that has it alone has the same latent there.
    only = ~(once.obs_names.isin(once.mod["prot"].obs_names) | once.obs_names.isin(once.mod["atac"].obs_names))
    names = once.obs_names[only & once.obs_names.isin(rna.obs_names)]
    assert len(names)
    rows = alone.obs_names.get_indexer(names)
    np.testing.assert_array_equal(alone.obsm[LATENT][rows], once.obsm[LATENT][once.obs_names.get_indexer(names)])
    everything = tl.project(mudata.MuData({k: v[:60].copy() for k, v in complete.items()}), once, copy=True, **QUIET)
    assert (everything.obsm[VARIANCE] < without.obsm[VARIANCE]).all()


def test_proteins_that_nobody_measured(once: MuData, complete: dict[str, ad.AnnData]) -> None:
    query = tl.project(mudata.MuData({"rna": complete["rna"].copy()}), once, copy=True, **QUIET)
    query.obs["batch"] = "a"
    got = tl.normalized_expression(query, modality="prot", **QUIET)
    assert got.index.equals(query.obs_names)
    assert list(got) == list(complete["prot"].var_names)
    decoder = once.mod["prot"].uns["ldvae"]["decoder"]
    effects = np.asarray(decoder["covariate_effects"], np.float64)[:, 0]
    expected = np.exp(query.obsm[LATENT].astype(np.float64) @ decoder["loadings"].T + decoder["intercept"] + effects)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # Of the fit's own cells, too; those that have it are decoded as without the others.
    of_all = tl.normalized_expression(once, modality="prot", **QUIET)
    assert of_all.index.equals(once.obs_names)
    own = tl.normalized_expression(once.mod["prot"], **QUIET)
    np.testing.assert_array_equal(of_all.loc[own.index], own)


def test_a_modality_answers_alone(once: MuData, tmp_path: Path) -> None:
    once.mod["rna"].write_h5ad(tmp_path / "rna.h5ad")
    alone = ad.read_h5ad(tmp_path / "rna.h5ad")
    pd.testing.assert_frame_equal(get.loadings(alone), get.loadings(once, modality="rna"))
    for tool in (tl.elbo, tl.reconstruction_error, tl.marginal_log_likelihood):
        value = tool(alone, n_samples=2, **QUIET)
        assert np.isfinite(value)
        assert value == tool(once, modality="rna", n_samples=2, **QUIET)
    expected = tl.normalized_expression(once.mod["rna"], **QUIET)
    pd.testing.assert_frame_equal(tl.normalized_expression(alone, **QUIET), expected)
    tl.rotate(alone, key_added="turned")
    tl.explained_deviance(alone, cells="all", **QUIET)
    assert len(get.explained_deviance(alone)) == N_LATENT


def test_explained_deviance_is_that_of_each_modality_alone(fitted: MuData) -> None:
    tl.explained_deviance(fitted, cells="all", **QUIET)
    of_all = fitted.uns["ldvae_explained_deviance"]
    assert of_all["modalities"].tolist() == list(WIDTHS)
    for i, name in enumerate(WIDTHS):
        adata = fitted.mod[name].copy()
        tl.explained_deviance(adata, cells="all", **QUIET)
        alone = adata.uns["ldvae_explained_deviance"]
        assert of_all["total"][i] == pytest.approx(alone["total"], rel=1e-6)
        assert of_all["n_cells"][i] == alone["n_cells"] == adata.n_obs
        for part in ("share", "marginal", "cumulative"):
            np.testing.assert_allclose(of_all[part][i], alone[part], rtol=1e-6)


def test_elbo_of_held_out_cells_is_the_records(once: MuData) -> None:
    held_out = once[once.obs["ldvae_held_out"].to_numpy()].copy()
    expected = once.mod["rna"].uns["ldvae"]["elbo_held_out"]
    assert tl.elbo(held_out, n_samples=10, **QUIET) == pytest.approx(expected, abs=0.3)
    per_cell = held_out.copy()
    tl.elbo(per_cell, n_samples=10, key_added="elbo", **QUIET)
    assert per_cell.obs["elbo"].mean() == pytest.approx(tl.elbo(held_out, n_samples=10, **QUIET))
    assert tl.marginal_log_likelihood(held_out, n_samples=50, **QUIET) > expected


# Rotations.


def log_means(mdata: MuData, key: str, prefix: str) -> dict[str, np.ndarray]:
    """What the stored arrays say of the cells of each modality, before the softmax."""
    found = {}
    for name, adata in mdata.mod.items():
        decoder = adata.uns[key]["decoder"]
        latent = adata.obsm[prefix].astype(np.float64)
        logs = latent @ decoder["loadings"].astype(np.float64).T + decoder["intercept"]
        found[name] = logs if name == "prot" else np.log(softmax(logs, 1))
    return found


def test_scanpy_takes_the_joint_latent_of_a_mudata(fitted: MuData) -> None:
    sc.pp.neighbors(fitted, n_neighbors=8, use_rep=LATENT)
    latent = fitted.obsm[LATENT].astype(np.float64)
    distances = np.linalg.norm(latent[:, None] - latent, axis=2)
    nearest = np.sort(distances, axis=1)[:, 1:8]
    found = fitted.obsp["distances"].toarray()
    for own, expected in zip(found, nearest, strict=True):
        np.testing.assert_allclose(np.sort(own[own > 0]), expected, rtol=1e-3)


@pytest.mark.parametrize("method", ["varimax", "promax", "principal", "modality"])
def test_rotations_keep_the_means(method: str, fitted: MuData) -> None:
    tl.rotate(fitted, method, key_added="turned")
    before, after = log_means(fitted, "ldvae", LATENT), log_means(fitted, "turned", "turned")
    for name in WIDTHS:
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)
    matrix = np.asarray(fitted.uns["turned"]["views"]["rna"]["rotation"])
    if method in {"varimax", "modality"}:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(N_LATENT), atol=1e-10)
    np.testing.assert_allclose(fitted.obsm["turned"], fitted.obsm[LATENT] @ matrix, atol=1e-5)
    assert tl.elbo(fitted, key="turned", **QUIET) == pytest.approx(tl.elbo(fitted, **QUIET), rel=1e-5)
    stored = record.read_joint(fitted, "turned")
    assert stored.total_explained_deviance == pytest.approx(
        record.read_joint(fitted).total_explained_deviance, abs=1e-4
    )


def test_only_joint_fits_have_modalities_to_rotate_to(fitted: MuData) -> None:
    with pytest.raises(ValueError, match=r"^method='modality' needs a joint fit"):
        tl.rotate(fitted, "modality", modality="rna", key_added="turned")


# Damage.


def change_weights(content: dict[str, Any]) -> None:
    content["weights"] = content["weights"] * 2


def change_loadings(content: dict[str, Any]) -> None:
    content["views"]["prot"]["decoder"]["loadings"] = content["views"]["prot"]["decoder"]["loadings"] + 1e-3


def drop_view(content: dict[str, Any]) -> None:
    del content["views"]["atac"]


def take_a_view_of_another(content: dict[str, Any]) -> None:
    content["views"]["prot"] = content["views"]["atac"]


def lose_the_order(content: dict[str, Any]) -> None:
    content["modalities"] = content["modalities"][::-1]


def become_newer(content: dict[str, Any]) -> None:
    content["schema_version"] = 99


def have_a_newer_view(content: dict[str, Any]) -> None:
    content["views"]["atac"]["schema_version"] = 99


def lose_the_views(content: dict[str, Any]) -> None:
    content["views"] = "gone"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        pytest.param(change_weights, "its values are not those that were written", id="weights"),
        pytest.param(change_loadings, "not those that were written", id="loadings"),
        pytest.param(drop_view, "'views/atac' is missing", id="view"),
        pytest.param(take_a_view_of_another, "not those that were written", id="swapped"),
        pytest.param(lose_the_order, "not those that were written", id="order"),
        pytest.param(become_newer, "format 99.*reads up to", id="newer"),
        pytest.param(become_newer, r"was written in format 99, .* Update sc-ldvae\.$", id="newer, not damaged"),
        pytest.param(have_a_newer_view, "was written in format 99", id="newer view"),
        pytest.param(lose_the_views, "'views/.*' is missing", id="no views"),
    ],
)
def test_damaged_records_are_refused(damage: Callable[[dict[str, Any]], None], sentence: str, fitted: MuData) -> None:
    damage(fitted.uns["ldvae"])
    for ask in (lambda: tl.elbo(fitted, **QUIET), lambda: tl.project(fitted, fitted, **QUIET)):
        with pytest.raises(ValueError, match=rf"uns\['ldvae'\] .*{sentence}"):
            ask()


# Refusals.


def two_axes(parts: dict[str, ad.AnnData]) -> MuData:
    first, second = parts["rna"].copy(), parts["rna"].copy()
    second.obs_names = [f"other{name}" for name in second.obs_names]
    return mudata.MuData({"rna": first, "prot": second}, axis=1)


def with_slash(parts: dict[str, ad.AnnData]) -> MuData:
    return mudata.MuData({"rna": parts["rna"].copy(), "a/b": parts["prot"].copy()})


def with_lonely_cells(parts: dict[str, ad.AnnData]) -> MuData:
    other = ad.AnnData(np.ones((3, 2), np.float32))
    other.var_names = ["x", "y"]
    return mudata.MuData({**{name: part.copy() for name, part in parts.items()}, "other": other})


def with_a_fit_of_its_own(parts: dict[str, ad.AnnData]) -> MuData:
    mdata = together(parts)
    tl.ldvae(mdata, 2, modality="prot", gene_likelihood="nb_background", max_epochs=1, **QUIET)
    return mdata


def with_a_joint_fit(parts: dict[str, ad.AnnData]) -> MuData:
    mdata = together(parts)
    tl.ldvae(mdata, 2, **FITTING | {"max_epochs": 1})
    return mdata


def with_twins(parts: dict[str, ad.AnnData]) -> MuData:
    mdata = together(parts)
    names = mdata.mod["prot"].obs_names.to_numpy().copy()
    names[1] = names[0]
    mdata.mod["prot"].obs_names = names
    return mdata


def stale(parts: dict[str, ad.AnnData]) -> MuData:
    """A modality has been renamed cells since."""
    mdata = together(parts)
    mdata.mod["rna"] = parts["rna"][:100].copy()
    mdata.mod["rna"].obs_names = [f"new{i}" for i in range(100)]
    return mdata


def with_fewer_genes(parts: dict[str, ad.AnnData]) -> MuData:
    """As who leaves some out and does not tell the MuData."""
    mdata = together(parts)
    mdata.mod["rna"] = parts["rna"][:, ::2].copy()
    return mdata


def with_turned_genes(parts: dict[str, ad.AnnData]) -> MuData:
    mdata = together(parts)
    mdata.mod["rna"] = parts["rna"][:, ::-1].copy()
    return mdata


ALONE = {"modalities": None}
REFUSALS = [
    pytest.param(two_axes, {"modalities": ["rna", "prot"]}, ValueError, "share axis 1.*same cells", id="axis"),
    pytest.param(
        together, {"modalities": {"rna": "nb", "hto": "nb"}}, ValueError, r"^modalities: 'hto' is not", id="unknown"
    ),
    pytest.param(with_slash, {"modalities": ["rna", "a/b"]}, ValueError, "'a/b'.*Rename", id="slash"),
    pytest.param(
        together, {"modalities": {"rna": "nb", "prot": "gauss"}}, ValueError, "'gauss' of 'prot' is unknown", id="name"
    ),
    pytest.param(with_lonely_cells, {}, ValueError, "^3 of 183 cells .*none of the modalities", id="no-modality"),
    pytest.param(together, {"modalities": {"prot": "nb"}}, ValueError, "^Some cells lack 'prot'.*modality=", id="few"),
    pytest.param(together, {"modalities": []}, ValueError, "^modalities is empty", id="empty"),
    pytest.param(with_a_fit_of_its_own, {}, ValueError, "^key_added='ldvae': modality 'prot' has a fit", id="taken"),
    pytest.param(
        with_a_joint_fit,
        ALONE | {"modality": "rna"},
        ValueError,
        r"^uns\['ldvae'\] of modality 'rna' is part",
        id="part",
    ),
    pytest.param(together, {"modality": "rna"}, ValueError, "^modality='rna' and modalities were both", id="both"),
    pytest.param(
        together,
        {"gene_likelihood": "poisson"},
        ValueError,
        "^gene_likelihood and modalities were both",
        id="likelihood",
    ),
    *(
        pytest.param(
            together,
            ALONE | {"modality": "rna", argument: {"rna": value}},
            TypeError,
            f"^{argument} names modalities.*Pass modalities=",
            id=f"{argument}-alone",
        )
        for argument, value in {"layer": "counts", "mask_var": None, "size_factor_key": "s"}.items()
    ),
    *(
        pytest.param(
            together,
            {argument: {"hto": value}},
            ValueError,
            f"^{argument} names 'hto', which is none of",
            id=f"{argument}-unknown",
        )
        for argument, value in {
            "layer": None,
            "mask_var": None,
            "size_factor_key": "s",
            "modality_weights": 1.0,
        }.items()
    ),
    *(
        pytest.param(
            together,
            {"modality_weights": {"prot": weight}},
            ValueError,
            "^modality_weights: that of 'prot' must be above 0",
            id=f"weight-{weight}",
        )
        for weight in (-1.0, 0.0, np.inf, np.nan)
    ),
    *(
        pytest.param(
            together, {"hide_modality": share}, ValueError, "^hide_modality must be at least 0", id=f"hide-{share}"
        )
        for share in (-0.1, 1.0, np.nan)
    ),
    pytest.param(
        together, {"size_factor_key": {"prot": "s"}}, ValueError, "^In modality 'prot': size_factor_key='s'", id="size"
    ),
    pytest.param(with_twins, {}, ValueError, "^obs_names of modality 'prot' are not unique", id="twins"),
    pytest.param(stale, {}, ValueError, r"^100 cells of modality 'rna' .*mdata\.update\(\)", id="stale"),
    *(
        pytest.param(make, {}, ValueError, r"^Genes of modality 'rna' .*mdata\.update\(\)", id=make.__name__)
        for make in (with_fewer_genes, with_turned_genes)
    ),
    pytest.param(
        together, {"layer": {"atac": "raw"}}, ValueError, "^In modality 'atac': layer='raw'", id="layer-missing"
    ),
]


@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(("make", "kwargs", "error", "sentence"), REFUSALS)
def test_refused_with_a_sentence_and_nothing_changed(
    make: Callable[[dict[str, ad.AnnData]], MuData],
    kwargs: dict[str, Any],
    error: type[Exception],
    sentence: str,
    parts: dict[str, ad.AnnData],
) -> None:
    mdata = make(parts)
    before = contents(mdata)
    with pytest.raises(error, match=sentence):
        tl.ldvae(mdata, 2, **FITTING | {"max_epochs": 1} | kwargs)
    assert contents(mdata) == before


def test_an_anndata_has_no_modalities(complete: dict[str, ad.AnnData]) -> None:
    with pytest.raises(TypeError, match=r"^modalities was given, but data is a AnnData"):
        tl.ldvae(complete["rna"], 2, **FITTING)


def test_counts_that_are_none_are_named_with_their_modality(parts: dict[str, ad.AnnData]) -> None:
    mdata = together(parts)
    mdata.mod["atac"].X.data[0] = 0.5
    with pytest.raises(ValueError, match=r"^In modality 'atac', .*not integers"):
        tl.ldvae(mdata, 2, **FITTING)


# All of it or nothing.


class Strike:
    """Raises at a line of what `record.write_joint` calls; never for 0. Counts the lines."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.n, self._at, self._error, self._within = 0, at, error, False

    def __call__(self, frame: Any, event: str, _: object) -> Any:
        from sc_ldvae.record._store import write_joint

        if self._within or (event == "call" and frame.f_code is write_joint.__code__):
            self._within = True
            return self._line
        return None

    def _line(self, _: object, event: str, __: object) -> Any:
        if event == "line":
            self.n += 1
            if self.n == self._at:
                sys.settrace(None)
                raise self._error
        return self._line

    def over(self, call: Callable[[], object]) -> BaseException | None:
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        except BaseException as error:  # noqa: BLE001  interrupts are what this is about
            return error
        finally:
            sys.settrace(before)
        return None


@pytest.mark.parametrize("form", ["first", "again", "view"])
def test_a_write_is_whole_or_not_at_all(
    form: str, once: MuData, parts: dict[str, ad.AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("sc_ldvae.record._moved.write_joint", lambda _, *entries: given.append(entries))
    chosen = np.arange(N_OBS) < 100

    def subject() -> tuple[MuData, MuData]:
        mdata = together(parts) if form == "first" else once.copy()
        return mdata, mdata[chosen] if form == "view" else mdata

    parent, mdata = subject()
    before = contents(mdata), contents(parent)
    tl.project(mdata, once, key_added="ldvae" if form == "again" else "new", **QUIET)
    assert (contents(mdata), contents(parent)) == before
    (entries,) = given
    from sc_ldvae.record._store import write_joint

    count = Strike(0, MemoryError)
    assert count.over(lambda: write_joint(mdata, *entries)) is None
    after = contents(mdata), contents(parent)
    assert after[0] != before[0] or form == "again"
    for i, point in enumerate(np.linspace(1, count.n, 9, dtype=int).tolist()):
        other_parent, other = subject()
        strike = Strike(point, MemoryError if i % 2 else KeyboardInterrupt)
        strike.over(lambda other=other: write_joint(other, *entries))
        now = contents(other), contents(other_parent)
        assert now in (before, after), f"half written at line event {point} of {count.n}"


def test_a_fit_into_a_view_leaves_its_parent(once: MuData) -> None:
    mdata = once.copy()
    before = contents(mdata)
    view = mdata[np.arange(N_OBS) < 120]
    tl.ldvae(view, 2, key_added="new", **FITTING)
    assert contents(mdata) == before
    assert view.obsm["new"].shape == (120, 2)
    assert record.read_joint(view, "new").n_latent == 2


def moved(parts: dict[str, ad.AnnData]) -> MuData:
    """Another modality has become the last one, after the MuData knew its genes."""
    mdata = together(parts)
    rna = mdata.mod["rna"]
    del mdata.mod["rna"]
    mdata.update()
    mdata.mod["rna"] = rna
    mdata.update()
    # mudata 0.3.10 knows the modality no more: then the sentence of the refusal advises this.
    return mdata if "rna" in mdata.varmap else mudata.MuData(dict(mdata.mod))


def shuffled_view(parts: dict[str, ad.AnnData]) -> MuData:
    mdata, rng = together(parts), np.random.default_rng(0)
    return mdata[rng.permutation(N_OBS)[:130], rng.permutation(mdata.n_vars)]


@pytest.mark.parametrize("make", [moved, shuffled_view])
def test_rows_are_those_of_their_names(
    make: Callable[[dict[str, ad.AnnData]], MuData], complete: dict[str, ad.AnnData], parts: dict[str, ad.AnnData]
) -> None:
    mdata = make(complete if make is moved else parts)
    tl.ldvae(mdata, N_LATENT, **FITTING | {"max_epochs": 1})
    latent = pd.DataFrame(mdata.obsm[LATENT], index=mdata.obs_names)
    loadings = pd.DataFrame(mdata.varm[LOADINGS], index=mdata.var_names)
    for adata in mdata.mod.values():
        np.testing.assert_array_equal(latent.loc[adata.obs_names], adata.obsm[LATENT])
        np.testing.assert_array_equal(loadings.loc[adata.var_names], adata.varm[LOADINGS])
    # And the latent is that of the counts.
    again = tl.project(mdata, mdata, key_added="again", copy=True, **QUIET)
    again = pd.DataFrame(again.obsm["again"], index=again.obs_names)
    np.testing.assert_array_equal(again.loc[mdata.obs_names], mdata.obsm[LATENT])


def other_cell(adata: ad.AnnData) -> None:
    adata.obs_names = ["other", *adata.obs_names[1:]]


def other_genes(adata: ad.AnnData) -> None:
    adata.var_names = [f"other{i}" for i in range(adata.n_vars)]


@pytest.mark.parametrize(
    ("change", "what"), [(other_cell, "are not in obs_names of"), (other_genes, "are not those that")]
)
def test_a_mudata_that_does_not_know_a_modality_is_made_anew(
    change: Callable[[ad.AnnData], None], what: str, complete: dict[str, ad.AnnData]
) -> None:
    mdata = together(complete)
    change(mdata["prot"])
    with pytest.raises(
        ValueError, match=rf"odality 'prot' .*{what}.*update.*anew, mudata\.MuData\(dict\(mdata\.mod\)\)"
    ):
        tl.ldvae(mdata, N_LATENT, **FITTING)
    anew = mudata.MuData(dict(mdata.mod))
    tl.ldvae(anew, N_LATENT, **FITTING | {"max_epochs": 1})
    assert np.isfinite(anew.obsm[LATENT]).all()


def test_an_interrupt_while_training_leaves_the_object(fitted: MuData, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = Cells.shuffled

    def interrupted(*args: Any) -> Iterator[Any]:
        yield next(shuffled(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(Cells, "shuffled", interrupted)
    before = contents(fitted)
    with pytest.raises(KeyboardInterrupt):
        tl.ldvae(fitted, 2, **FITTING)
    assert contents(fitted) == before


def test_copy_leaves_the_input(fitted: MuData) -> None:
    before = contents(fitted)
    other = tl.ldvae(fitted, 2, copy=True, **FITTING | {"max_epochs": 1})
    assert contents(fitted) == before
    assert other.obsm[LATENT].shape == (N_OBS, 2)


# Trainings that go on, and counts on disk.


def test_a_training_goes_on_to_the_same_bits(
    once: MuData, parts: dict[str, ad.AnnData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled, n_epochs, file = Cells.shuffled, [], tmp_path / "state.npz"

    def interrupted(*args: Any) -> Iterator[Any]:
        n_epochs.append(1)
        if len(n_epochs) == 3:
            raise KeyboardInterrupt
        return shuffled(*args)

    mdata = together(parts)
    with monkeypatch.context() as patched:
        patched.setattr(Cells, "shuffled", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tl.ldvae(mdata, N_LATENT, batch_key="batch", checkpoint=file, **FITTING)
    assert file.exists()
    for name, other in (("hide_modality", 0.5), ("modality_weights", {"rna": 2.0})):
        with pytest.raises(ValueError, match=f"is of another fit.*{name}"):
            tl.ldvae(mdata, N_LATENT, batch_key="batch", checkpoint=file, resume=True, **FITTING | {name: other})
    tl.ldvae(mdata, N_LATENT, batch_key="batch", checkpoint=file, resume=True, **FITTING)
    assert_same_fit(mdata, once)


def test_several_processes_are_refused(once: MuData, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "some", "RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"^modalities was given, but 2 processes fit together"):
        tl.ldvae(once.copy(), N_LATENT, key_added="other", **FITTING)


def test_counts_on_disk_give_the_same_bits(once: MuData, parts: dict[str, ad.AnnData], tmp_path: Path) -> None:
    backed = {}
    for name, part in parts.items():
        part.write_h5ad(tmp_path / f"{name}.h5ad")
        backed[name] = ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
    mdata = mudata.MuData(backed)
    mdata.obs["batch"] = once.obs["batch"]
    tl.ldvae(mdata, N_LATENT, batch_key="batch", **FITTING)
    assert_same_fit(mdata, once)


# What was simulated.

TABLE = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)


def of_table(n: int, missing: float) -> tuple[MuData, np.ndarray]:
    """Factors that act on some of three modalities, as TABLE says; and the truth of each cell."""
    rng, found = np.random.default_rng(0), {}
    z, names = rng.normal(size=(n, len(TABLE))), np.array([f"cell{i}" for i in range(n)])
    for m, (name, width, depth) in enumerate((("rna", 150, 1500), ("prot", 40, 1500), ("atac", 200, 300))):
        w = rng.normal(0, 0.7, (width, len(TABLE))) * TABLE[:, m]
        mean = softmax(z @ w.T + rng.normal(0, 0.7, width), 1) * depth * np.exp(rng.normal(0, 0.3, (n, 1)))
        counts = rng.poisson(mean * rng.gamma(5, 1 / 5, mean.shape) if name != "atac" else mean)
        has = rng.random(n) >= missing if m else np.ones(n, bool)
        adata = ad.AnnData(sparse.csr_matrix(counts[has].astype(np.float32)), obs=pd.DataFrame(index=names[has]))
        adata.var_names = [f"{name}{i}" for i in range(width)]
        found[name] = adata
    return mudata.MuData(found), z


def test_which_factor_acts_on_which_modality() -> None:
    mdata, z = of_table(1000, missing=0.2)
    asked = {"rna": "nb", "prot": "nb", "atac": "bernoulli"}
    tl.ldvae(mdata, len(TABLE) + 3, modalities=asked, batch_size=64, **QUIET)
    tl.rotate(mdata, "modality", key_added="turned")
    stored = record.read_joint(mdata, "turned")
    left = np.array(stored.left)
    assert len(TABLE) <= len(left) <= len(TABLE) + 1
    correlations = np.abs(np.corrcoef(z.T, mdata.obsm["turned"][:, left].T)[: len(TABLE), len(TABLE) :])
    truth, factors = linear_sum_assignment(-correlations)
    assert correlations[truth, factors].min() > 0.8
    shares = np.array([view.explained_deviance for view in stored.views.values()])[:, left].T
    shares = (shares / shares.sum(0))[factors]
    found = shares > 0.1 * shares.max(1, keepdims=True)
    assert (found == TABLE).mean() >= 0.95
