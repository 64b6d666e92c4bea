"""Files of earlier formats: everything works on their fits, and what is written anew is in the format of today."""

# files/format<n>.* hold what the last commit of each format wrote, in a .h5ad and up to format 5 in a .zarr (zarr
# format 2, without consolidated metadata; packed, as it is 450 files and more): 5b5ed47 wrote format 1, a59b52a format
# 2, 55b2cc7 format 3, 75f8597 format 4, 3a11470 format 5, 2ead39a format 6, 6b1e18c format 7, with anndata 0.12.19,
# NumPy 2.4.6 and torch 2.13.0 on a CPU. Each made the counts,
#     datasets.simulate(30, 12, 2, n_batches=2, n_continuous=1, mean_library=200, gene_likelihood="zinb", rng=1)
# without the truth beside them, but with a random "sex" and a "size_factor" that goes with the total counts, and fitted
# all genes with n_latent=2, n_hidden=4, max_epochs=2, device="cpu" and else the defaults:
#     "ldvae": batch_key="batch", categorical_covariate_keys=["sex"], continuous_covariate_keys=["covariate1"],
#              size_factor_key="size_factor", gene_likelihood="zinb", dispersion="gene-batch", batch_size=8
#     "plain": key_added="plain", whose library is latent
# "rotated" is tl.rotate(adata, key_added="rotated"), which there is from format 3 on.

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import softmax

from sc_ldvae import get, tl

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILES = Path(__file__).parent / "files"
SUFFIXES = ("h5ad", "zarr")
# Mean over all cells, as the commit that wrote the fit computes it: by its tl.elbo with the defaults; 5b5ed47, which
# had none, by its model before it was folded, from the same draws.
ELBO = {
    1: {"ldvae": -37.27610533396403, "plain": -60.18359395345052},
    2: {"ldvae": -37.27610452175141, "plain": -60.18359934012095},
    3: {"ldvae": -37.27610452175141, "plain": -60.18359934012095, "rotated": -37.27610452175141},
    4: {"ldvae": -37.27610452175141, "plain": -60.18359934012095, "rotated": -37.27610452175141},
    5: {"ldvae": -37.27610452175141, "plain": -60.18359934012095, "rotated": -37.27610452175141},
    6: {"ldvae": -37.43115557114284, "plain": -60.18359934012095, "rotated": -37.431156868139894},
    7: {"ldvae": -37.38712784051896, "plain": -60.18359934012095, "rotated": -37.387129061222076},
}
LIKELIHOODS = {"ldvae": ("zinb", "gene-batch"), "plain": ("nb", "gene"), "rotated": ("zinb", "gene-batch")}


class Fit(NamedTuple):
    """A fit in a file."""

    version: int
    suffix: str
    key: str

    @property
    def elbo(self) -> float:
        return ELBO[self.version][self.key]


# Files by format and suffix; later ones are read as those of format 5.
PAIRS = [(version, suffix) for version in ELBO for suffix in SUFFIXES if suffix == "h5ad" or version < 6]
FITS = [Fit(version, suffix, key) for version, suffix in PAIRS for key in ELBO[version]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], AnnData]:
    """Shared by all tests: change a copy."""
    folder = tmp_path_factory.mktemp("files")
    for packed in FILES.glob("*.tar.gz"):
        shutil.unpack_archive(packed, folder, filter="data")
    return {(version, suffix): read(folder / f"format{version}.{suffix}") for version, suffix in PAIRS}


@pytest.fixture(params=FITS, ids=lambda fit: f"{fit.key}-{fit.version}-{fit.suffix}")
def fit(request: pytest.FixtureRequest) -> Fit:
    return request.param


@pytest.fixture
def adata(files: dict[tuple[int, str], AnnData], fit: Fit) -> AnnData:
    return files[fit.version, fit.suffix].copy()


def test_the_files_hold_the_old_formats(adata: AnnData, fit: Fit) -> None:
    content = adata.uns[fit.key]
    assert int(content["schema_version"]) == fit.version
    assert ("blocks" in content) == (fit.version > 3)
    assert ("loadings_se" in content["keys"]) == ("loadings_covariance" in content) == (fit.version > 2)
    assert ("checksum" in content) == ("fit" in content["keys"]) == (fit.version > 4)
    assert "prior_scale" not in content
    assert ("loadings_prior" in content["params"]) == (fit.version > 5)
    assert ("size_factor_unit" in content) == (fit.version > 1 and fit.key != "plain")
    assert ("rotation" in content) == (fit.key == "rotated")


def test_loadings(adata: AnnData, fit: Fit) -> None:
    frame = get.loadings(adata, key=fit.key)
    assert frame.columns.tolist() == [f"{fit.key}1", f"{fit.key}2"]
    assert frame.index.tolist() == adata.var_names.tolist()
    np.testing.assert_array_equal(frame, adata.uns[fit.key]["decoder"]["loadings"])
    np.testing.assert_array_equal(frame, adata.varm[entry(adata, fit, "loadings")])


def test_errors_of_loadings_from_format_3_on(adata: AnnData, fit: Fit) -> None:
    if fit.version < 3:
        with pytest.raises(ValueError, match="has no errors of its loadings, as it was written by an older version"):
            get.loadings_se(adata, key=fit.key)
    else:
        np.testing.assert_allclose(
            get.loadings_se(adata, key=fit.key), adata.varm[entry(adata, fit, "loadings_se")], rtol=1e-5
        )


def test_factors(adata: AnnData, fit: Fit) -> None:
    frame, latent = get.factors(adata, key=fit.key), adata.obsm[entry(adata, fit, "latent")].astype(np.float64)
    assert frame.index.tolist() == [f"{fit.key}1", f"{fit.key}2"]
    np.testing.assert_array_equal(frame["explained_deviance"], adata.uns[fit.key]["explained_deviance"])
    np.testing.assert_allclose(frame["mean"], latent.mean(0), rtol=1e-5)
    np.testing.assert_allclose(frame["sd"], latent.std(0), rtol=1e-5)
    np.testing.assert_allclose(frame["posterior_sd"], posterior_sd(adata, fit), rtol=1e-5)
    assert "prior_scale" not in frame
    assert not frame["vanished"].any()
    assert frame.attrs["total_explained_deviance"] == adata.uns[fit.key]["total_explained_deviance"]


def test_history(adata: AnnData, fit: Fit) -> None:
    frame, stored = get.history(adata, key=fit.key), adata.uns[fit.key]["history"]
    assert frame.index.tolist() == [1, 2]
    assert frame.columns.tolist() == ["elbo", "elbo_held_out", "kl_weight", "lr"]
    for name, column in frame.items():
        np.testing.assert_array_equal(column, stored[name])
    assert frame.attrs == {"stop_reason": "max_epochs=2 reached", "best_epoch": 2}


def test_decoded_means(adata: AnnData, fit: Fit) -> None:
    decoded = tl.normalized_expression(adata, library="own", key=fit.key, progress=False)
    assert isinstance(decoded, pd.DataFrame)
    assert decoded.columns.tolist() == adata.var_names.tolist()
    np.testing.assert_allclose(decoded, means(adata, fit), rtol=1e-5)


def test_elbo(adata: AnnData, fit: Fit) -> None:
    assert tl.elbo(adata, key=fit.key, progress=False) == pytest.approx(fit.elbo, rel=1e-5)


def test_projection_of_its_own_cells(adata: AnnData, fit: Fit) -> None:
    # No more than what the cells bring along, so that all else comes from the record.
    query = AnnData(adata.X.copy(), adata.obs[["batch", "sex", "covariate1", "size_factor"]].copy(), adata.var.copy())
    tl.project(query, adata, key=fit.key, progress=False)
    latent, variance, library = (entry(adata, fit, name) for name in ("latent", "variance", "library"))
    np.testing.assert_allclose(query.obsm[latent], adata.obsm[latent], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(query.obsm[variance], adata.obsm[variance], rtol=1e-5)
    np.testing.assert_allclose(query.obs[library], adata.obs[library], rtol=1e-5)
    assert query.obs[entry(adata, fit, "held_out")].all()
    assert tl.elbo(query, key=fit.key, progress=False) == pytest.approx(fit.elbo, rel=1e-5)


def test_a_projection_is_of_format_8(adata: AnnData, fit: Fit) -> None:
    query = adata.copy()
    tl.project(query, adata, key=fit.key, progress=False)
    check_anew(query, fit, fit.key)


def test_a_rotation_is_of_format_8(adata: AnnData, fit: Fit) -> None:
    tl.rotate(adata, key=fit.key, key_added="turned")
    check_anew(adata, fit, "turned")
    assert int(adata.uns[fit.key]["schema_version"]) == fit.version


# A .zarr takes seconds to write, so all fits of a file go into one.
@pytest.mark.parametrize(
    ("version", "old_suffix", "suffix"),
    [
        *((*pair, "h5ad") for pair in PAIRS),
        (max(ELBO), "h5ad", "zarr"),
    ],
)
def test_format_8_in_files_beside_an_old_fit(
    files: dict[tuple[int, str], AnnData], version: int, old_suffix: str, suffix: str, tmp_path: Path
) -> None:
    old, (kept, *projected) = files[version, old_suffix], (Fit(version, old_suffix, key) for key in ELBO[version])
    new = old.copy()
    tl.rotate(new, key=kept.key, key_added="turned")
    for fit in projected:
        tl.project(new, old, key=fit.key, progress=False)
    back = written_and_read(new, tmp_path / f"new.{suffix}")
    check_anew(back, kept, "turned")
    for fit in projected:
        check_anew(back, fit, fit.key)
    assert int(back.uns[kept.key]["schema_version"]) == version
    assert tl.elbo(back, key=kept.key, progress=False) == pytest.approx(kept.elbo, rel=1e-5)


def read(path: Path) -> AnnData:
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


def written_and_read(adata: AnnData, path: Path) -> AnnData:
    if path.suffix == ".zarr":
        adata.write_zarr(path)
    else:
        adata.write_h5ad(path)
    return read(path)


def entry(adata: AnnData, fit: Fit, name: str) -> str:
    return str(adata.uns[fit.key]["keys"][name])


def check_anew(adata: AnnData, fit: Fit, key: str) -> None:
    """Assert that the fit stands under `key` in format 8, and is still the same model."""
    content = adata.uns[key]
    assert content["schema_version"] == 8
    likelihood, dispersion = LIKELIHOODS[fit.key]
    assert {name: list(values) for name, values in content["blocks"].items()} == {
        "modality": [""],
        "start": [0],
        "stop": [12],
        "gene_likelihood": [likelihood],
        "dispersion": [dispersion],
    }
    assert content["checksum"]
    assert len(adata.obs[content["keys"]["fit"]].unique()) == 1
    if fit.key != "plain":
        ratios = adata.obs[entry(adata, fit, "library")] / adata.obs["size_factor"]
        np.testing.assert_allclose(ratios, float(content["size_factor_unit"]), rtol=1e-6)
    assert get.loadings(adata, key=key).columns.tolist() == [f"{key}1", f"{key}2"]
    np.testing.assert_allclose(
        tl.normalized_expression(adata, library="own", key=key, progress=False), means(adata, fit), rtol=1e-4
    )
    assert tl.elbo(adata, key=key, progress=False) == pytest.approx(fit.elbo, rel=1e-5)


def posterior_sd(adata: AnnData, fit: Fit) -> NDArray[np.float64]:
    """Root mean posterior variance of the factors as they are shown."""
    variance = adata.obsm[entry(adata, fit, "variance")].astype(np.float64)
    rotation = np.asarray(adata.uns[fit.key].get("rotation", np.eye(2)))
    covariance = rotation.T @ np.diag(variance.mean(0)) @ rotation
    return np.sqrt(np.diag(covariance))


def means(adata: AnnData, fit: Fit) -> NDArray[np.float64]:
    """Means of the cells' counts, zero inflation aside, out of the arrays in the object."""
    content: dict[str, Any] = adata.uns[fit.key]
    decoder = {name: np.asarray(content["decoder"][name], np.float64) for name in ("loadings", "intercept")}
    eta = adata.obsm[entry(adata, fit, "latent")].astype(np.float64) @ decoder["loadings"].T + decoder["intercept"]
    if "covariates" in content:
        table = pd.DataFrame({name: list(values) for name, values in content["covariates"].items()})
        assert table["key"].tolist() == ["batch", "batch", "sex", "sex", "covariate1"]
        columns = [
            adata.obs[row.key] == row.level if row.level else (adata.obs[row.key] - row.mean) / row.sd
            for row in table.itertuples()
        ]
        eta += np.column_stack(columns).astype(np.float64) @ np.asarray(content["decoder"]["covariate_effects"]).T
    library = adata.obs[entry(adata, fit, "library")].to_numpy(np.float64)
    return library[:, None] * softmax(eta, axis=1)
