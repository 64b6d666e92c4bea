"""Results that go into a file of their own, some cells after the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import sc_ldvae
from sc_ldvae.decode import _counts, _normalized
from sc_ldvae.record import _new_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

SUFFIXES = ["h5ad", "zarr"]


@pytest.fixture(autouse=True)
def _several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_normalized, "CHUNK", 64)
    monkeypatch.setattr(_counts, "_AT_ONCE", 64 * 60)


@pytest.fixture(scope="module")
def adata(fitted: AnnData) -> AnnData:
    adata = fitted.copy()
    adata.var["length"] = np.arange(adata.n_vars)
    return adata


def expression(adata: AnnData, **options: Any) -> Any:
    return sc_ldvae.tl.normalized_expression(adata, progress=False, **options)


def counts(adata: AnnData, **options: Any) -> Any:
    return sc_ldvae.tl.posterior_predictive(adata, progress=False, **options)


def read(path: Path, **options: Any) -> AnnData:
    return ad.read_h5ad(path, **options) if path.suffix == ".h5ad" else ad.read_zarr(path)


def dense(matrix: Any) -> np.ndarray:
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("function", "options"),
    [
        pytest.param(expression, {}, id="expression"),
        pytest.param(expression, {"genes": ["gene7", "gene3"], "n_samples": 2}, id="some-genes"),
        pytest.param(expression, {"threshold": 0.02}, id="sparse-expression"),
        pytest.param(counts, {"rng": 3}, id="counts"),
        pytest.param(counts, {"genes": ["gene7", "gene3"]}, id="counts-of-some-genes"),
    ],
)
def test_a_file_has_what_memory_has(
    function: Callable[..., Any],
    options: dict[str, Any],
    suffix: str,
    adata: AnnData,
    unchanged: Callable[[AnnData], Any],
    tmp_path: Path,
) -> None:
    path = tmp_path / f"result.{suffix}"
    with unchanged(adata):
        assert function(adata, path=path, **options) is None
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    expected, back = function(adata, **options), read(path)
    expected = expected[0] if isinstance(expected, list) else expected
    np.testing.assert_array_equal(dense(back.X), dense(expected))
    assert back.X.dtype == np.float32
    assert sparse.issparse(back.X) == sparse.issparse(expected)
    genes = options.get("genes", adata.uns["ldvae"]["genes"])
    assert back.var_names.tolist() == list(genes)
    np.testing.assert_array_equal(back.var["length"], adata.var["length"].loc[genes])
    assert back.obs.equals(adata.obs)
    np.testing.assert_array_equal(back.obsm["X_ldvae"], adata.obsm["X_ldvae"])


@pytest.mark.parametrize("threshold", [None, 0.02], ids=["dense", "sparse"])
def test_what_is_backed_by_a_file_is_written_and_read_backed(
    threshold: float | None, adata: AnnData, tmp_path: Path
) -> None:
    adata.write_h5ad(tmp_path / "counts.h5ad")
    disk = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    expression(disk, threshold=threshold, path=tmp_path / "result.h5ad")
    disk.file.close()
    back = read(tmp_path / "result.h5ad", backed="r")
    # It is read as a file of counts is, some cells at a time.
    np.testing.assert_array_equal(dense(back.X[70:90]), dense(expression(adata, threshold=threshold))[70:90])
    back.file.close()


def test_genes_that_are_gone_are_written_without_annotation(adata: AnnData, tmp_path: Path) -> None:
    genes = adata.uns["ldvae"]["genes"]
    less = adata[:, adata.var_names != genes[2]].copy()
    expression(less, path=tmp_path / "result.h5ad")
    back = read(tmp_path / "result.h5ad")
    assert back.var_names.tolist() == list(genes)
    assert not len(back.var.columns)
    np.testing.assert_array_equal(back.X, expression(adata))


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (expression, {"path": "there.h5ad"}, r"^path: .*there\.h5ad exists\. Name another file, or remove it first\."),
        (expression, {"path": "result.csv"}, r"^path: result\.csv has another suffix than \.h5ad or \.zarr"),
        (expression, {"path": "no/result.h5ad"}, r"^path: there is no folder .*no\. Make it first\."),
        (expression, {"path": "result.h5ad", "key_added": "a"}, r"^path and key_added were both given"),
        (
            counts,
            {"path": "result.h5ad", "n_samples": 2},
            r"^path was given with n_samples=2, but a file gets one draw",
        ),
    ],
    ids=["exists", "suffix", "folder", "layer-too", "draws"],
)
def test_what_can_not_be_written_is_refused_at_once(
    function: Callable[..., Any], options: dict[str, Any], said: str, adata: AnnData, tmp_path: Path
) -> None:
    (tmp_path / "there.h5ad").write_text("mine")
    options = options | {"path": tmp_path / options["path"]}
    with pytest.raises(ValueError, match=said):
        function(adata, **options)
    assert (tmp_path / "there.h5ad").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_nothing(
    suffix: str, adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_new_file.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    said = r"^The values could not be written to .*result.*: it needs 0\.0 GB, and 0\.0 GB are free\.$"
    with pytest.raises(OSError, match=said):
        expression(adata, path=tmp_path / f"result.{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("No space left on device")], ids=repr)
def test_what_is_cut_short_leaves_nothing(
    suffix: str, error: BaseException, adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = _new_file._append, []

    def fail(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise error
        append(*arguments)

    monkeypatch.setattr(_new_file, "_append", fail)
    with pytest.raises(type(error)):
        counts(adata, path=tmp_path / f"result.{suffix}")
    assert len(calls) == 3
    assert not list(tmp_path.iterdir())
