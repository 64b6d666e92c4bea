from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import h5py
import matplotlib.image
import mudata
import numpy as np
import pandas as pd
import pytest

import sc_ldvae
from sc_ldvae.__main__ import _parser, main
from sc_ldvae._typing import Unset

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

QUICK = ("--max-epochs", "2", "--n-latent", "2", "--no-progress")


class Outcome(NamedTuple):
    code: int
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str | Path) -> Outcome:
        with pytest.MonkeyPatch.context() as patch:
            # So that the command sets up the log as it does in a terminal, and not in what pytest set up before.
            patch.setattr(logging.root, "handlers", [])
            patch.setattr(logging.root, "level", logging.WARNING)
            # A bar that does not fit into a line is cut off.
            for name in ("COLUMNS", "LINES"):
                patch.setenv(name, "300")
            code = main([str(argument) for argument in arguments])
        return Outcome(code, capsys.readouterr().err)

    return run


@pytest.fixture(scope="module")
def counts() -> AnnData:
    adata = sc_ldvae.datasets.simulate(80, 30, 3, n_batches=2, n_continuous=2)
    adata.var["chosen"] = np.arange(30) < 20
    adata.obs["train"] = np.arange(80) % 4 > 0
    adata.obs["size"] = adata.obs["true_library"]
    adata.obs["type"] = pd.Categorical(np.where(np.arange(80) % 3 == 0, "T", "B"))
    adata.layers["raw"] = adata.X.copy()
    return adata


@pytest.fixture
def file(counts: AnnData, tmp_path: Path) -> Path:
    path = tmp_path / "counts.h5ad"
    counts.write_h5ad(path)
    return path


def picture(path: Path) -> np.ndarray:
    pixels = matplotlib.image.imread(path)
    assert pixels[..., :3].min() < 0.5 < pixels[..., :3].max()
    return pixels


def test_embedded_set(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run("fit", "-o", tmp_path / "out" / "pbmc.h5ad", *QUICK, "--n-latent", "4", "--n-genes", "3")
    assert outcome.code == 0
    names = ["pbmc.h5ad", "pbmc_loadings.png", "pbmc_top_genes.csv"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert all(f"Wrote {tmp_path / 'out' / name}\n" in outcome.stderr for name in names)

    back = ad.read_h5ad(tmp_path / "out" / "pbmc.h5ad")
    assert back.shape == (700, 765)
    assert back.obsm["X_ldvae"].shape == (700, 4)
    assert back.uns["ldvae"]["n_epochs"] == 2
    explained = sc_ldvae.get.factors(back).attrs["total_explained_deviance"]
    assert f"4 factors explain {100 * explained:.1f} % of the held-out deviance.\n" in outcome.stderr

    table = pd.read_csv(tmp_path / "out" / "pbmc_top_genes.csv", index_col=["factor", "gene"])
    expected = sc_ldvae.get.top_genes(back, 3)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=1e-5)
    assert min(picture(tmp_path / "out" / "pbmc_loadings.png").shape[:2]) > 200


def test_file_with_batches_is_what_tl_does(
    run: Callable[..., Outcome], file: Path, counts: AnnData, fit_quickly: Callable[..., AnnData], tmp_path: Path
) -> None:
    output = tmp_path / "fitted.h5ad"
    options = ("--batch-key", "batch", "--n-latent", "3", "--rng", "5", "--key-added", "foo")
    assert run("fit", file, "-o", output, *QUICK, *options).code == 0
    back = ad.read_h5ad(output)
    expected = fit_quickly(counts, 3, batch_key="batch", rng=5, key_added="foo", copy=True)
    np.testing.assert_array_equal(back.obsm["foo"], expected.obsm["foo"])
    np.testing.assert_array_equal(back.varm["foo"], expected.varm["foo"])
    assert back.uns["foo"]["covariates"]["level"].tolist() == ["batch0", "batch1"]
    picture(tmp_path / "fitted_loadings.png")
    assert pd.read_csv(tmp_path / "fitted_top_genes.csv")["factor"].unique().tolist() == ["foo1", "foo2", "foo3"]


def test_every_option_reaches_the_fit(
    run: Callable[..., Outcome], file: Path, counts: AnnData, fit_quickly: Callable[..., AnnData], tmp_path: Path
) -> None:
    asked = {
        "n_latent": 2,
        "layer": "raw",
        "mask_var": "chosen",
        "batch_key": "batch",
        "labels_key": "type",
        "categorical_covariate_keys": ["type"],
        "continuous_covariate_keys": ["covariate1", "covariate2"],
        "size_factor_key": "size",
        "train_size": "train",
        "gene_likelihood": "zinb",
        "dispersion": "gene-label",
        "latent_distribution": "ln",
        "n_hidden": 16,
        "n_layers_encoder": 2,
        "dropout_rate": 0.2,
        "batch_size": 30,
        "lr": 0.01,
        "rng": 3,
        "device": "cpu",
    }
    switches = {"log_variational": False, "use_batch_norm": False, "bias": True, "early_stopping": False}
    options = []
    for name, value in asked.items():
        options += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [str(value)])]
    options += [f"--{'' if on else 'no-'}{name.replace('_', '-')}" for name, on in switches.items()]
    assert run("fit", file, "-o", tmp_path / "fitted.h5ad", *QUICK, *options, "--use-observed-lib-size").code == 0

    back = ad.read_h5ad(tmp_path / "fitted.h5ad")
    expected = fit_quickly(counts, **asked, **switches, use_observed_lib_size=True, copy=True)
    np.testing.assert_array_equal(back.obsm["X_ldvae"], expected.obsm["X_ldvae"])
    got, wanted = (
        {key: np.asarray(value).tolist() for key, value in adata.uns["ldvae"]["params"].items()}
        for adata in (back, expected)
    )
    assert got == wanted


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_counts_may_stay_on_disk(suffix: str, tmp_path: Path) -> None:
    adata = sc_ldvae.datasets.simulate(60, 20, 2)
    counts, output = tmp_path / f"counts{suffix}", tmp_path / "result.h5ad"
    if suffix == ".zarr":
        pytest.importorskip("dask")
        adata.write_zarr(counts)
    else:
        adata.write_h5ad(counts)
    arguments = ["fit", str(counts), "--backed", "-o", str(output), "--n-latent", "2", "--max-epochs", "2"]
    assert main([*arguments, "--no-progress"]) == 0
    result = ad.read_h5ad(output)
    sc_ldvae.tl.ldvae(adata, 2, max_epochs=2, progress=False)
    assert result.X is None
    assert result.uns["ldvae"]["checksum"] == adata.uns["ldvae"]["checksum"]


@pytest.mark.parametrize("given", [["--backed"], ["counts.h5ad", "--backed", "--raw"], ["counts.h5", "--backed"]])
def test_what_can_not_stay_on_disk_is_refused(given: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert main(["fit", *given]) == 2
    assert "--backed was given, but only X and layers of a .h5ad or .zarr file" in caplog.text


def test_defaults_are_those_of_tl() -> None:
    options = vars(_parser().parse_args(["fit"]))
    parameters = inspect.signature(sc_ldvae.tl.ldvae).parameters
    expected = {name: parameter.default for name, parameter in parameters.items()}
    # Of joint fits, which the command line does not know, and of calls.
    for name in ("data", "copy", "random_state", "modalities", "hide_modality", "modality_weights"):
        del expected[name]
    for name in ("command", "counts", "backed", "output", "n_genes", "genome", "raw"):
        del options[name]
    assert options.pop("rng") == 0
    assert isinstance(expected.pop("rng"), Unset)
    assert options == {name: None if isinstance(value, Unset) else value for name, value in expected.items()}


def test_zarr_to_zarr(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    counts.write_zarr(tmp_path / "counts.zarr")
    assert run("fit", tmp_path / "counts.zarr", "-o", tmp_path / "fitted.zarr", *QUICK).code == 0
    assert ad.read_zarr(tmp_path / "fitted.zarr").obsm["X_ldvae"].shape == (80, 2)
    picture(tmp_path / "fitted_loadings.png")


def test_modality_of_a_mudata_file(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    mudata.MuData({"rna": counts.copy()}).write_h5mu(tmp_path / "counts.h5mu")
    output = tmp_path / "fitted.h5mu"
    assert run("fit", tmp_path / "counts.h5mu", "--modality", "rna", "-o", output, *QUICK).code == 0
    assert mudata.read_h5mu(output)["rna"].obsm["X_ldvae"].shape == (80, 2)
    picture(tmp_path / "fitted_loadings.png")


def test_progress_bar_names_elbo_and_the_reason_of_the_stop(
    run: Callable[..., Outcome], file: Path, tmp_path: Path
) -> None:
    stderr = run("fit", file, "-o", tmp_path / "fitted.h5ad", "--max-epochs", "2", "--n-latent", "2").stderr
    for part in ("2/2", "ELBO -", "held-out -", "stopped: max_epochs=2 reached"):
        assert part in stderr
    assert "ELBO" not in run("fit", file, "-o", tmp_path / "fitted.h5ad", *QUICK).stderr


def log_normalised(adata: AnnData, folder: Path) -> tuple[str | Path, ...]:
    adata.X = adata.X.log1p()
    adata.write_h5ad(folder / "log.h5ad")
    return (folder / "log.h5ad",)


def missing(_: AnnData, folder: Path) -> tuple[str | Path, ...]:
    return (folder / "absent.h5ad",)


def unknown_suffix(_: AnnData, folder: Path) -> tuple[str | Path, ...]:
    (folder / "counts.csv").write_text("cell,gene\n")
    return (folder / "counts.csv",)


def not_hdf5(_: AnnData, folder: Path) -> tuple[str | Path, ...]:
    (folder / "text.h5ad").write_text("not HDF5\n")
    return (folder / "text.h5ad",)


def not_10x(adata: AnnData, folder: Path) -> tuple[str | Path, ...]:
    adata.write_h5ad(folder / "counts.h5")
    return (folder / "counts.h5",)


def good_with(*options: str) -> Callable[[AnnData, Path], tuple[str | Path, ...]]:
    def arguments(adata: AnnData, folder: Path) -> tuple[str | Path, ...]:
        adata.write_h5ad(folder / "good.h5ad")
        return (folder / "good.h5ad", *options)

    return arguments


def mudata_without_modality(adata: AnnData, folder: Path) -> tuple[str | Path, ...]:
    mudata.MuData({"rna": adata}).write_h5mu(folder / "counts.h5mu")
    return (folder / "counts.h5mu", "-o", folder / "never.h5mu")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(missing, "There is no file", id="missing-file"),
        pytest.param(unknown_suffix, "counts.csv has an unknown suffix", id="unknown-suffix"),
        pytest.param(not_hdf5, "text.h5ad", id="not-hdf5"),
        pytest.param(not_10x, "counts.h5", id="not-10x"),
        pytest.param(log_normalised, "X holds", id="log-normalised"),
        pytest.param(good_with("--batch-key", "lab"), "batch_key='lab' is not a column of obs", id="unknown-key"),
        pytest.param(good_with("--n-latent", "30"), "n_latent must be", id="n-latent"),
        pytest.param(good_with("--device", "quantum"), "device='quantum' can't be used", id="device"),
        pytest.param(good_with("--modality", "rna"), "modality='rna' was given", id="modality-of-anndata"),
        pytest.param(good_with("--lr", "1e30", "--max-epochs", "5"), "Try a smaller lr", id="diverges"),
        pytest.param(good_with("--raw"), "--raw was given, but data is a AnnData without raw", id="no-raw"),
        pytest.param(good_with("--genome", "mm10"), "genome='mm10' was given, but good.h5ad has none", id="no-genome"),
        pytest.param(good_with("--n-genes", "0"), "n_genes must be at least 1", id="n-genes"),
        pytest.param(
            mudata_without_modality, "data is a MuData, and this is asked of one", id="mudata-without-modality"
        ),
    ],
)
def test_refused_with_a_sentence(
    arguments: Callable[[AnnData, Path], tuple[str | Path, ...]],
    sentence: str,
    run: Callable[..., Outcome],
    counts: AnnData,
    tmp_path: Path,
) -> None:
    outcome = run("fit", "-o", tmp_path / "never.h5ad", *QUICK, *arguments(counts.copy(), tmp_path))
    assert outcome.code == 2
    *told, line = outcome.stderr.strip().split("\n")
    assert line.startswith("sc_ldvae: ")
    assert sentence in line
    assert all("Trained again with" in one for one in told)
    assert not list(tmp_path.glob("never*"))


@pytest.fixture
def with_raw(counts: AnnData, tmp_path: Path) -> Path:
    """As files of CELLxGENE are: counts of all genes in raw, log-normalised values of some in X."""
    adata = counts.copy()
    adata.raw = counts.copy()
    adata = adata[:, :20].copy()
    adata.X = adata.X.log1p()
    path = tmp_path / "with_raw.h5ad"
    adata.write_h5ad(path)
    return path


def test_counts_in_raw(
    run: Callable[..., Outcome],
    with_raw: Path,
    counts: AnnData,
    fit_quickly: Callable[..., AnnData],
    tmp_path: Path,
) -> None:
    assert run("fit", with_raw, "--raw", "-o", tmp_path / "fitted.h5ad", *QUICK).code == 0
    back = ad.read_h5ad(tmp_path / "fitted.h5ad")
    np.testing.assert_array_equal(back.obsm["X_ldvae"], fit_quickly(counts, 2, copy=True).obsm["X_ldvae"])
    np.testing.assert_array_equal(back.X.toarray(), counts.X.toarray())


def test_the_sentence_points_to_raw(run: Callable[..., Outcome], with_raw: Path, tmp_path: Path) -> None:
    outcome = run("fit", with_raw, "-o", tmp_path / "never.h5ad", *QUICK)
    assert outcome.code == 2
    assert "X holds" in outcome.stderr
    assert "add --raw" in outcome.stderr


def test_one_genome_of_a_file(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "counts.h5", "w") as file:
        for genome in ("hg19", "mm10"):
            group = file.create_group(genome)
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(counts.X, name)
            group["shape"] = counts.shape[::-1]
            group["barcodes"] = counts.obs_names.to_numpy().astype("S")
            group["genes"] = group["gene_names"] = np.array([f"{genome}_{i}" for i in range(30)], dtype="S")
    arguments = ("fit", tmp_path / "counts.h5", "-o", tmp_path / "fitted.h5ad", *QUICK)
    refused = run(*arguments)
    assert refused.code == 2
    assert "--genome" in refused.stderr
    assert run(*arguments, "--genome", "mm10").code == 0
    assert ad.read_h5ad(tmp_path / "fitted.h5ad").var_names[0] == "mm10_0"


def test_no_memory_is_a_sentence(
    run: Callable[..., Outcome], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sc_ldvae.tl, "ldvae", fail)
    assert run("fit", file, "-o", tmp_path / "never.h5ad") == (2, "sc_ldvae: MemoryError.\n")


def test_log_normalised_counts_get_their_hint(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    stderr = run("fit", "-o", tmp_path / "never.h5ad", *log_normalised(counts.copy(), tmp_path)).stderr
    assert "look log-normalised" in stderr
    assert "layer" in stderr


@pytest.mark.parametrize("name", ["fitted.csv", "fitted", "fitted.h5mu"])
def test_output_is_refused_before_the_fit(
    name: str, run: Callable[..., Outcome], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sc_ldvae.tl, "ldvae", lambda *_, **__: pytest.fail("fitted before the output was checked"))
    outcome = run("fit", file, "-o", tmp_path / "new" / name)
    assert outcome.code == 2
    assert f"{name} must end in .h5ad or .zarr, for data is a AnnData" in outcome.stderr
    assert not (tmp_path / "new").exists()


def test_mudata_needs_an_h5mu_output(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    mudata.MuData({"rna": counts.copy()}).write_h5mu(tmp_path / "counts.h5mu")
    outcome = run("fit", tmp_path / "counts.h5mu", "--modality", "rna", "-o", tmp_path / "fitted.h5ad")
    assert outcome.code == 2
    assert "fitted.h5ad must end in .h5mu, for data is a MuData" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-command"),
        pytest.param(["train"], id="unknown-command"),
        pytest.param(["fit", "--n-latent", "many"], id="not-a-number"),
        pytest.param(["fit", "--gene-likelihood", "normal"], id="unknown-likelihood"),
        pytest.param(["fit", "--unknown"], id="unknown-option"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert "usage: python -m sc_ldvae" in capsys.readouterr().err


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m sc_ldvae")
    assert "fit counts" in text


def test_it_runs_as_a_module() -> None:
    source = str(Path(sc_ldvae.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "sc_ldvae", "fit", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.startswith("usage: python -m sc_ldvae fit")
    for option in ("--output", "--n-latent", "--batch-key", "--max-epochs", "--no-progress"):
        assert option in done.stdout
