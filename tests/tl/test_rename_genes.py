"""Genes renamed in an object and in what fits left there: answers are the same, under the new names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import sc_ldvae
from sc_ldvae import get, record, tl

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from anndata import AnnData
    from mudata import MuData

QUIET: dict[str, Any] = {"progress": False}


def symbols(names: pd.Index) -> list[str]:
    """Each gene's number, from the last one on: no new name is that of another gene."""
    return [f"SYMBOL{len(names) - i}" for i in range(len(names))]


@pytest.fixture(scope="module")
def before(simulated: AnnData) -> AnnData:
    """Two fits, of which one has some of the genes alone, and what is asked of the first; change a copy."""
    adata = simulated.copy()
    adata.obs["label"] = np.where(np.arange(adata.n_obs) % 3, "a", "b")
    adata.var["chosen"] = np.arange(adata.n_vars) % 4 > 0
    adata.var["symbol"] = symbols(adata.var_names)
    tl.ldvae(adata, 3, max_epochs=3, batch_key="batch", **QUIET)
    tl.ldvae(adata, 2, max_epochs=3, mask_var="chosen", key_added="some", **QUIET)
    tl.rotate(adata, "varimax", key_added="rotated")
    tl.stability(adata, 2, **QUIET)
    tl.differential_expression(adata, "label", **QUIET)
    return adata


@pytest.fixture
def renamed(before: AnnData) -> AnnData:
    adata = before.copy()
    tl.rename_genes(adata, "symbol")
    return adata


def test_answers_are_the_same_under_new_names(before: AnnData, renamed: AnnData) -> None:
    new = dict(zip(before.var_names, symbols(before.var_names), strict=True))
    assert renamed.var_names.tolist() == list(new.values())
    for key in ("ldvae", "some", "rotated"):
        pd.testing.assert_frame_equal(get.loadings(renamed, key=key), get.loadings(before, key=key).rename(index=new))
        pd.testing.assert_frame_equal(
            tl.normalized_expression(renamed, key=key, **QUIET),
            tl.normalized_expression(before, key=key, **QUIET).rename(columns=new),
        )
        assert tl.elbo(renamed, key=key, **QUIET) == tl.elbo(before, key=key, **QUIET)
    # Results are still those of the fit.
    pd.testing.assert_frame_equal(get.stability(renamed), get.stability(before))
    for group in ("a", "b"):
        found, expected = (get.differential_expression(one, group) for one in (renamed, before))
        expected["names"] = expected["names"].map(new) if "names" in expected else expected.index.map(new)
        np.testing.assert_array_equal(found["scores"], expected["scores"])
        names = found.get("names", found.index)
        assert names.tolist() == expected["names"].tolist()
    assert set(renamed.uns["rank_genes_groups"]["names"]["a"]) == set(new.values())


def test_new_cells_are_mapped_by_the_new_names(before: AnnData, renamed: AnnData) -> None:
    query = before[::3, ::-1].copy()
    expected = tl.project(query, before, copy=True, **QUIET).obsm["X_ldvae"]
    query.var_names = query.var["symbol"].astype(str)
    query.var_names.name = None
    found = tl.project(query, renamed, copy=True, **QUIET)
    np.testing.assert_array_equal(found.obsm["X_ldvae"], expected)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_keep_the_new_names(suffix: str, renamed: AnnData, tmp_path: Path) -> None:
    path = tmp_path / f"renamed{suffix}"
    (renamed.write_h5ad if suffix == ".h5ad" else renamed.write_zarr)(path)
    back = ad.read_h5ad(path) if suffix == ".h5ad" else ad.read_zarr(path)
    tl.rename_genes(back, dict(zip(back.var_names, map(str.lower, back.var_names), strict=True)))
    assert get.loadings(back).index.tolist() == [name.lower() for name in get.loadings(renamed).index]
    frame = get.differential_expression(back, "a")
    assert all(name.startswith("symbol") for name in frame.get("names", frame.index))


def test_a_fit_is_renamed_after_its_object(before: AnnData) -> None:
    """Whose names somebody has changed alone, so that the fit's genes are not found."""
    adata = before.copy()
    adata.var["gene_ids"] = adata.var_names
    adata.var_names = symbols(adata.var_names)
    with pytest.raises(ValueError, match="are not among var_names"):
        tl.elbo(adata, **QUIET)
    tl.rename_genes(adata, dict(zip(adata.var["gene_ids"], adata.var_names, strict=True)))
    assert tl.elbo(adata, **QUIET) == tl.elbo(before, **QUIET)
    np.testing.assert_array_equal(get.loadings(adata), get.loadings(before))


def test_other_genes_keep_their_names(before: AnnData) -> None:
    got = tl.rename_genes(before, {"gene3": "CD3E", "no gene": "LYZ"}, copy=True)
    assert got.var_names.tolist() == ["CD3E" if name == "gene3" else name for name in before.var_names]
    assert "gene3" in before.var_names
    assert "gene3" in record.read(before).genes
    # Names may be exchanged.
    got = tl.rename_genes(before, {"gene3": "gene4", "gene4": "gene3"}, copy=True)
    np.testing.assert_array_equal(get.loadings(got).loc["gene4"], get.loadings(before).loc["gene3"])


def test_a_view_becomes_an_object(before: AnnData) -> None:
    view = before[:, 10:]
    tl.rename_genes(view, "symbol")
    assert not view.is_view
    assert view.var_names.tolist() == symbols(before.var_names)[10:]
    assert before.var_names[10] == "gene10"
    # Genes that the view does not have are not in its column.
    assert record.read(view).genes.tolist() == [f"gene{i}" for i in range(10)] + symbols(before.var_names)[10:]


@pytest.mark.parametrize(
    ("names", "error", "sentence"),
    [
        pytest.param("ids", ValueError, r"^names='ids' is not a column of var\. Columns: .*'symbol'", id="column"),
        pytest.param(
            "holes", ValueError, r"^names='holes': var\['holes'\] is missing in 2 genes\. Fill it", id="missing"
        ),
        pytest.param("numbers", ValueError, r"^names='numbers': var\['numbers'\] holds 0, but names", id="numbers"),
        pytest.param("twins", ValueError, "^names makes 1 genes of .* share a name .*'gene0' and 'gene1'", id="twins"),
        pytest.param({"gene0": "gene1"}, ValueError, "^names makes 1 genes of .* share a name", id="taken"),
        pytest.param({"CD3E": "LYZ"}, ValueError, "^names holds no gene of data or of its fits .*'CD3E'", id="unknown"),
        pytest.param({}, ValueError, "^names holds no gene of data or of its fits", id="empty"),
        pytest.param({"gene0": 3}, TypeError, "^names must be a dict of text by text or text", id="number"),
        pytest.param(["a", "b"], TypeError, r"^names must be a dict .* but is \['a', 'b'\]", id="list"),
    ],
)
def test_refused_and_nothing_changed(
    names: Any, error: type[Exception], sentence: str, before: AnnData, unchanged: Callable[..., Any]
) -> None:
    adata = before.copy()
    adata.var["holes"] = pd.Series(symbols(adata.var_names), adata.var_names).where(np.arange(adata.n_vars) > 1)
    adata.var["twins"] = ["twin", "twin", *symbols(adata.var_names)[2:]]
    adata.var["numbers"] = np.arange(adata.n_vars)
    with unchanged(adata), pytest.raises(error, match=sentence):
        tl.rename_genes(adata, names)


def test_a_write_is_whole_or_not_at_all(
    before: AnnData, unchanged: Callable[..., AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = before.copy()
    original = ad.AnnData.var_names

    def fail(self: AnnData, names: Any) -> None:
        original.fset(self, names)
        if "SYMBOL1" in names:
            msg = "interrupted"
            raise OSError(msg)

    monkeypatch.setattr(ad.AnnData, "var_names", property(original.fget, fail))
    with unchanged(adata), pytest.raises(OSError, match="interrupted"):
        tl.rename_genes(adata, "symbol")


def test_modalities(before: AnnData, joint: MuData) -> None:
    from mudata import MuData

    mdata = MuData({"rna": before.copy()})
    tl.rename_genes(mdata, "symbol", modality="rna")
    assert mdata["rna"].var_names.tolist() == symbols(before.var_names)
    mdata = joint.copy()
    with pytest.raises(ValueError, match=r"^uns\['ldvae'\] is of a joint fit, .* Rename before the fit"):
        tl.rename_genes(mdata, {"rna1": "CD3E"}, modality="rna")


def test_a_file_open_for_writing_is_refused(before: AnnData, tmp_path: Path) -> None:
    before.write_h5ad(tmp_path / "fit.h5ad")
    backed = ad.read_h5ad(tmp_path / "fit.h5ad", backed="r+")
    with pytest.raises(ValueError, match=r"^data is backed by a file open for writing"):
        tl.rename_genes(backed, "symbol")
    backed.file.close()
    read = ad.read_h5ad(tmp_path / "fit.h5ad", backed="r")
    tl.rename_genes(read, "symbol")
    assert get.loadings(read).index.tolist() == symbols(before.var_names)
    assert sc_ldvae.tl.elbo(read, **QUIET) == tl.elbo(before, **QUIET)
