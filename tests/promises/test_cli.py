from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import h5py
import matplotlib.image
import mudata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

import sc_ldvae
from sc_ldvae._typing import Unset
from sc_ldvae.cli import main
from sc_ldvae.cli._parser import parser
from sc_ldvae.cli._wording import in_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from mudata import MuData

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
    silent = int((back.X.sum(0) == 0).sum())
    assert f"Fitted 765 genes; {silent} of them have no counts.\n" in outcome.stderr
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


@pytest.mark.parametrize("given", [[], ["counts.h5ad", "--raw"], ["counts.h5"]])
def test_what_can_not_stay_on_disk_is_refused(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("counts.h5ad", "counts.h5"):
        (tmp_path / name).touch()
    assert main(["fit", *given, "--backed"]) == 2
    assert "--backed was given, but only X and layers of a .h5ad or .zarr file" in caplog.text


def test_defaults_are_those_of_tl() -> None:
    options = vars(parser().parse_args(["fit"]))
    parameters = inspect.signature(sc_ldvae.tl.ldvae).parameters
    expected = {name: parameter.default for name, parameter in parameters.items()}
    # Of calls, and what has to be said for each modality.
    for name in ("data", "copy", "random_state", "modality_weights"):
        del expected[name]
    of_files = ("command", "counts", "backed", "output", "force", "genome", "raw")
    for name in (*of_files, "n_genes", "gene_symbols", "n_top_genes"):
        del options[name]
    assert options.pop("rng") == 0
    assert isinstance(expected.pop("rng"), Unset)
    assert options == expected


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
    assert "ELBO" not in run("fit", file, "-o", tmp_path / "again.h5ad", *QUICK).stderr


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
        pytest.param(good_with("--batch-key", "lab"), "--batch-key lab is not a column of obs", id="unknown-key"),
        pytest.param(good_with("--n-latent", "30"), "--n-latent must be", id="n-latent"),
        pytest.param(good_with("--device", "quantum"), "--device quantum can't be used", id="device"),
        pytest.param(
            good_with("--modality", "rna"), "--modality was given, but good.h5ad has none", id="modality-of-anndata"
        ),
        pytest.param(good_with("--lr", "1e30", "--max-epochs", "5"), "Try a smaller --lr", id="diverges"),
        pytest.param(good_with("--raw"), "--raw was given, but data is a AnnData without raw", id="no-raw"),
        pytest.param(good_with("--genome", "mm10"), "--genome mm10 was given, but good.h5ad has none", id="no-genome"),
        pytest.param(good_with("--n-genes", "0"), "--n-genes must be at least 1", id="n-genes"),
        pytest.param(good_with("--train-size", "0"), "--train-size must be above 0", id="train-size"),
        pytest.param(good_with("--n-top-genes", "31"), "--n-top-genes must be between 1 and", id="too-many-genes"),
        pytest.param(
            good_with("--n-top-genes", "9", "--batch-key", "lab"), "--batch-key lab is not", id="key-of-selection"
        ),
        pytest.param(
            good_with("--n-top-genes", "9", "--backed"), "--n-top-genes and --backed were both", id="backed-selection"
        ),
        pytest.param(
            good_with("--modalities", "rna=nb"), "--modalities was given, but good.h5ad has none", id="no-modalities"
        ),
        pytest.param(
            good_with("--modalities", "rna=nb", "prot"), "gives 'prot' no likelihood, but others", id="mixed-modalities"
        ),
        pytest.param(good_with("--modalities", "rna", "rna"), "names 'rna' twice", id="modality-twice"),
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
    assert "raw holds counts: add --raw." in outcome.stderr


def test_genes_are_shown_by_the_names_in_a_column(
    run: Callable[..., Outcome], with_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = ad.read_h5ad(with_raw)
    adata.raw.var["feature_name"] = ["S" + name for name in adata.raw.var_names]
    adata.write_h5ad(with_raw)
    drawn = []
    monkeypatch.setattr(sc_ldvae.pl, "loadings", lambda *_, **arguments: drawn.append(arguments["gene_symbols"]))
    outcome = run("fit", with_raw, "--raw", "--gene-symbols", "feature_name", "-o", tmp_path / "fitted.h5ad", *QUICK)
    assert outcome.code == 0
    genes = pd.read_csv(tmp_path / "fitted_top_genes.csv")["gene"]
    assert set(genes) <= {"S" + name for name in adata.raw.var_names}
    assert drawn == ["feature_name"]


@pytest.mark.usefixtures("never_fitted")
def test_a_column_that_is_not_there_is_refused_before_the_fit(
    run: Callable[..., Outcome], file: Path, tmp_path: Path
) -> None:
    outcome = run("fit", file, "--gene-symbols", "feature_name", "-o", tmp_path / "never.h5ad", *QUICK)
    assert outcome.code == 2
    assert "--gene-symbols feature_name is not a column of var" in outcome.stderr


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
    assert "e.g. --layer counts." in stderr


@pytest.mark.parametrize("name", ["fitted.csv", "fitted", "fitted.h5mu"])
def test_output_is_refused_before_the_fit(
    name: str, run: Callable[..., Outcome], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sc_ldvae.tl, "ldvae", lambda *_, **__: pytest.fail("fitted before the output was checked"))
    outcome = run("fit", file, "-o", tmp_path / "new" / name)
    assert outcome.code == 2
    assert f"{name} must end in .h5ad or .zarr, for the counts are those of an AnnData" in outcome.stderr
    assert not (tmp_path / "new").exists()


def test_mudata_needs_an_h5mu_output(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    mudata.MuData({"rna": counts.copy()}).write_h5mu(tmp_path / "counts.h5mu")
    outcome = run("fit", tmp_path / "counts.h5mu", "--modality", "rna", "-o", tmp_path / "fitted.h5ad")
    assert outcome.code == 2
    assert "fitted.h5ad must end in .h5mu, for the counts are those of a MuData" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-command"),
        pytest.param(["train"], id="unknown-command"),
        pytest.param(["fit", "--n-latent", "many"], id="not-a-number"),
        pytest.param(["fit", "--gene-likelihood", "normal"], id="unknown-likelihood"),
        pytest.param(["fit", "--unknown"], id="unknown-option"),
        pytest.param(["fit", "--modality", "rna", "--modalities", "rna=nb"], id="one-and-several-modalities"),
        pytest.param(["fit", "--mask-var", "chosen", "--n-top-genes", "9"], id="two-selections"),
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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"sc-ldvae {sc_ldvae.__version__}\n"


def test_the_script_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    ((name, target),) = project["scripts"].items()
    monkeypatch.setattr(sys, "argv", [f"bin/{name}"])
    assert parser().format_usage().startswith(f"usage: {name} ")
    assert pkgutil.resolve_name(target) is main


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


# What is said at once.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["absent.h5ad"], "There is no file absent.h5ad.", id="missing-file"),
        pytest.param(["-o", "a_file/fitted.h5ad"], "--output a_file/fitted.h5ad can't be written", id="no-folder"),
        pytest.param(["-o", "there.h5ad"], "--output: there.h5ad exists.", id="output-exists"),
    ],
)
def test_files_are_checked_before_anything_heavy_loads(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    for name in ("a_file", "there.h5ad"):
        (tmp_path / name).touch()
    source = Path(sc_ldvae.__file__).parents[1]
    code = (
        f"import sys; sys.path.insert(0, {str(source)!r}); from sc_ldvae.cli import main; "
        f"code = main(['fit', *{arguments!r}]); print(code, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    code, *loaded = done.stdout.split()
    assert code == "2"
    assert done.stderr.startswith(f"sc_ldvae: {sentence}")
    assert done.stderr.count("\n") == 1
    assert {"torch", "scanpy", "anndata", "pandas", "matplotlib"}.isdisjoint(loaded)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_file", "there.h5ad"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_refused(run: Callable[..., Outcome], file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    outcome = run("fit", file, "-o", folder / "new" / "fitted.h5ad", *QUICK)
    assert outcome.code == 2
    assert f"can't be written: {folder}: Permission denied. Name another folder." in outcome.stderr


@pytest.fixture
def never_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sc_ldvae.tl, "ldvae", lambda *_, **__: pytest.fail("it was fitted"))


@pytest.mark.usefixtures("never_fitted")
@pytest.mark.parametrize("name", ["fitted.h5ad", "fitted_loadings.png", "fitted_top_genes.csv"])
def test_files_that_are_there_are_kept(
    name: str, run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the output has its default name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("precious")
    outcome = run("fit", *QUICK)
    sentence = f"--output: {name} exists. Name another file, or add --force to replace it."
    assert outcome == (2, f"sc_ldvae: {sentence}\n")
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.usefixtures("never_fitted")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Name another file, or add --force to replace it."),
        (("--force", "--backed"), "with --backed not all of it is written again"),
        (("--force", "--raw"), "with --raw not all of it is written again"),
    ],
)
def test_the_counts_are_not_written_over(
    options: tuple[str, ...], sentence: str, run: Callable[..., Outcome], file: Path, tmp_path: Path
) -> None:
    before = file.read_bytes()
    (tmp_path / "link.h5ad").symlink_to(file)
    outcome = run("fit", file, "-o", tmp_path / "link.h5ad", *QUICK, *options)
    assert outcome.code == 2
    assert "link.h5ad is the file of the counts" in outcome.stderr
    assert sentence in outcome.stderr
    assert file.read_bytes() == before


def test_the_fit_goes_into_the_file_of_the_counts_by_force(
    run: Callable[..., Outcome], file: Path, counts: AnnData, tmp_path: Path
) -> None:
    (tmp_path / "counts_top_genes.csv").write_text("old")
    assert run("fit", file, "-o", file, "--force", *QUICK).code == 0
    back = ad.read_h5ad(file)
    np.testing.assert_array_equal(back.X.toarray(), counts.X.toarray())
    assert set(back.layers) - {None} == {"raw"}
    assert back.obsm["X_ldvae"].shape == (80, 2)
    assert pd.read_csv(tmp_path / "counts_top_genes.csv")["factor"].unique().tolist() == ["ldvae1", "ldvae2"]


def test_a_write_that_fails_leaves_the_file_of_the_counts(
    run: Callable[..., Outcome], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_: AnnData, path: Path) -> None:
        Path(path).write_text("half of it")
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(ad.AnnData, "write", half)
    outcome = run("fit", file, "-o", file, "--force", *QUICK)
    assert outcome.code == 2
    assert "No space left on device" in outcome.stderr
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.usefixtures("never_fitted")
@pytest.mark.parametrize("name", ["data.h5ad", "data.zarr"])
def test_no_folder_is_replaced(name: str, run: Callable[..., Outcome], file: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "precious").touch()
    outcome = run("fit", file, "-o", tmp_path / name, "--force")
    assert outcome.code == 2
    assert f"{name} is a folder. Name another file." in outcome.stderr
    assert (tmp_path / name / "precious").exists()


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_a_result_is_replaced_by_one_without_counts(
    suffix: str, run: Callable[..., Outcome], file: Path, counts: AnnData, tmp_path: Path
) -> None:
    output = tmp_path / f"fitted{suffix}"
    counts.write_zarr(output) if suffix == ".zarr" else counts.write_h5ad(output)
    outcome = run("fit", file, "--backed", "-o", output, "--force", *QUICK)
    assert outcome.code == 0
    assert "Fitted 30 genes.\n" in outcome.stderr
    back = ad.read_zarr(output) if suffix == ".zarr" else ad.read_h5ad(output)
    assert back.X is None
    assert "X_ldvae" in back.obsm


def test_interruption_is_one_line(
    run: Callable[..., Outcome], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sc_ldvae.tl, "ldvae", interrupted)
    assert run("fit", file, "-o", tmp_path / "never.h5ad") == (130, "sc_ldvae: Interrupted.\n")


# What sentences say.


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("name the layer, e.g. layer='counts'.", "name the layer, e.g. --layer counts."),
        ("Pass mask_var=None to fit all genes.", "Pass --mask-var none to fit all genes."),
        ("fit more genes (mask_var).", "fit more genes (--mask-var)."),
        ("Pass modality, one of 'rna'.", "Pass --modality, one of 'rna'."),
        ("pass modality= instead", "pass --modality instead"),
        ("such as modalities={'rna': 'nb'}.", "such as --modalities rna=nb."),
        ("resume=True was given", "--resume was given"),
        ("progress=False", "--no-progress"),
        ("labels_key='cell type'", "--labels-key 'cell type'"),
        ("checkpoint=/a/b.npz, lr=1e-3.", "--checkpoint /a/b.npz, --lr 1e-3."),
        ("There is no file /data/batch_key/n_latent.h5ad.", "There is no file /data/batch_key/n_latent.h5ad."),
        ("the layer, the modality and raw", "the layer, the modality and raw"),
    ],
)
def test_sentences_speak_of_options(sentence: str, expected: str) -> None:
    assert in_options(sentence, vars(parser().parse_args(["fit"]))) == expected


# Which genes.


def test_all_genes_in_spite_of_a_selection(run: Callable[..., Outcome], counts: AnnData, tmp_path: Path) -> None:
    adata = counts.copy()
    adata.var["highly_variable"] = adata.var["chosen"]
    adata.write_h5ad(tmp_path / "selected.h5ad")
    arguments = ("fit", tmp_path / "selected.h5ad", *QUICK)
    assert "Fitted 20 genes;" in run(*arguments, "-o", tmp_path / "some.h5ad").stderr
    assert "Fitted 30 genes;" in run(*arguments, "-o", tmp_path / "all.h5ad", "--mask-var", "none").stderr


@pytest.fixture
def rough(counts: AnnData) -> AnnData:
    """Log-normalised values in X, counts in a layer, of two genes none."""
    pytest.importorskip("skmisc")
    adata = counts.copy()
    adata.layers["raw"] = sparse.csr_matrix(adata.X.toarray() * (np.arange(30) > 1))
    adata.X = adata.X.log1p()
    return adata


def test_the_most_variable_genes_are_those_of_scanpy(
    run: Callable[..., Outcome], rough: AnnData, tmp_path: Path
) -> None:
    rough.write_h5ad(tmp_path / "counts.h5ad")
    options = ("--n-top-genes", "12", "--layer", "raw", "--batch-key", "batch")
    outcome = run("fit", tmp_path / "counts.h5ad", "-o", tmp_path / "fitted.h5ad", *QUICK, *options)
    assert outcome.code == 0
    sc.pp.highly_variable_genes(rough, flavor="seurat_v3", n_top_genes=12, layer="raw", batch_key="batch")
    back = ad.read_h5ad(tmp_path / "fitted.h5ad")
    assert back.uns["ldvae"]["genes"].tolist() == rough.var_names[rough.var["highly_variable"]].tolist()
    assert "Fitted 12 genes; 0 of them have no counts.\n" in outcome.stderr


def test_genes_without_counts_are_told(run: Callable[..., Outcome], rough: AnnData, tmp_path: Path) -> None:
    rough.write_h5ad(tmp_path / "counts.h5ad")
    outcome = run("fit", tmp_path / "counts.h5ad", "--layer", "raw", "-o", tmp_path / "fitted.h5ad", *QUICK)
    assert "Fitted 30 genes; 2 of them have no counts.\n" in outcome.stderr


@pytest.mark.usefixtures("never_fitted")
def test_what_is_no_count_is_refused_before_the_selection(
    run: Callable[..., Outcome], rough: AnnData, tmp_path: Path
) -> None:
    rough.write_h5ad(tmp_path / "log.h5ad")
    outcome = run("fit", tmp_path / "log.h5ad", "-o", tmp_path / "never.h5ad", "--n-top-genes", "12")
    assert outcome.code == 2
    assert "They look log-normalised: name the layer that holds the raw counts, e.g. --layer counts." in outcome.stderr


@pytest.mark.usefixtures("never_fitted")
def test_a_selection_that_scanpy_can_not_make_is_a_sentence(
    run: Callable[..., Outcome], rough: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = b"There are other near singularities as well. 0.1"
        raise ValueError(msg)

    monkeypatch.setattr(sc.pp, "highly_variable_genes", fail)
    rough.write_h5ad(tmp_path / "counts.h5ad")
    options = ("--n-top-genes", "12", "--layer", "raw")
    outcome = run("fit", tmp_path / "counts.h5ad", "-o", tmp_path / "never.h5ad", *options)
    assert outcome.code == 2
    sentence = "--n-top-genes 12: scanpy can't tell how variable genes are (There are other near singularities"
    assert sentence in outcome.stderr
    assert "Leave out --batch-key" in outcome.stderr


@pytest.mark.usefixtures("never_fitted")
def test_a_selection_without_scikit_misc_says_what_to_install(
    run: Callable[..., Outcome], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skmisc", None)
    outcome = run("fit", file, "-o", tmp_path / "never.h5ad", "--n-top-genes", "12")
    assert outcome.code == 2
    assert "--n-top-genes needs scikit-misc" in outcome.stderr
    assert "pip install scikit-misc" in outcome.stderr


# Several modalities.


@pytest.fixture
def two(counts: AnnData, tmp_path: Path) -> MuData:
    prot = sc_ldvae.datasets.simulate(80, 12, 2, gene_likelihood="nb_background")
    prot.var_names = [f"protein{i}" for i in range(12)]
    mdata = mudata.MuData({"rna": ad.AnnData(counts.X, counts.obs[[]], counts.var[[]]), "prot": prot})
    mdata.write_h5mu(tmp_path / "two.h5mu")
    return mdata


def test_modalities_are_fitted_together(
    run: Callable[..., Outcome], two: MuData, fit_quickly: Callable[..., MuData], tmp_path: Path
) -> None:
    options = ("--modalities", "rna=nb", "prot=nb_background", "--hide-modality", "0.5", "--n-genes", "3")
    outcome = run("fit", tmp_path / "two.h5mu", "-o", tmp_path / "fitted.h5mu", *QUICK, *options)
    assert outcome.code == 0
    assert "Fitted 30 features of rna; 0 of them have no counts.\n" in outcome.stderr
    assert "Fitted 12 features of prot; 0 of them have no counts.\n" in outcome.stderr
    back = mudata.read_h5mu(tmp_path / "fitted.h5mu")
    asked = {"modalities": {"rna": "nb", "prot": "nb_background"}, "hide_modality": 0.5}
    expected = fit_quickly(two, 2, copy=True, **asked)
    np.testing.assert_array_equal(back.obsm["X_ldvae"], expected.obsm["X_ldvae"])
    np.testing.assert_array_equal(back["prot"].varm["ldvae_loadings"], expected["prot"].varm["ldvae_loadings"])
    index = ["factor", "modality", "gene"]
    table = pd.read_csv(tmp_path / "fitted_top_genes.csv", index_col=index)
    pd.testing.assert_frame_equal(table, sc_ldvae.get.top_genes(back, 3), check_dtype=False, rtol=1e-5)
    picture(tmp_path / "fitted_loadings.png")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--modalities", "rna=nb", "atac=nb"), "'atac' is not in the MuData. Name some of 'rna', 'prot'."),
        (("--modalities", "rna=nb", "prot=normal"), "--gene-likelihood normal of 'prot' is unknown"),
        (("--modalities", "rna", "prot", "--hide-modality", "1"), "--hide-modality must be at least 0 and below 1"),
        (
            ("--modalities", "rna=nb", "--gene-likelihood", "poisson"),
            "--gene-likelihood and modalities were both given. Say in modalities which likelihood each has.",
        ),
        (
            ("--modalities", "rna=nb", "prot=nb_background", "--n-top-genes", "30"),
            "--n-top-genes 30, but no modality with counts of genes (nb, zinb, poisson) has more. Leave it out.",
        ),
        (
            ("--modalities", "rna=bernoulli", "prot=nb_background", "--n-top-genes", "5"),
            "--n-top-genes 5, but no modality with counts of genes",
        ),
        (
            ("--modalities", "rna=nb", "--n-top-genes", "5", "--batch-key", "lab"),
            "In the MuData: --batch-key lab is not a column of obs.",
        ),
        (
            ("--modalities", "rna=nb", "--n-top-genes", "5", "--layer", "raw"),
            "In modality 'rna': --layer raw is not in layers.",
        ),
    ],
)
def test_joint_fits_are_refused_with_a_sentence(
    options: tuple[str, ...], sentence: str, run: Callable[..., Outcome], two: MuData, tmp_path: Path
) -> None:
    assert set(two.mod) == {"rna", "prot"}
    outcome = run("fit", tmp_path / "two.h5mu", "-o", tmp_path / "never.h5mu", *QUICK, *options)
    assert outcome.code == 2
    if "--n-top-genes" in options:
        pytest.importorskip("skmisc")
    assert sentence in outcome.stderr
    assert not list(tmp_path.glob("never*"))


def test_a_file_among_the_modalities_is_noticed(run: Callable[..., Outcome]) -> None:
    outcome = run("fit", "--modalities", "rna=nb", "counts.h5mu")
    assert outcome.code == 2
    assert "If it is the file of the counts, name it before the options." in outcome.stderr


def test_genes_of_one_modality_are_selected(run: Callable[..., Outcome], two: MuData, tmp_path: Path) -> None:
    pytest.importorskip("skmisc")
    options = ("--modality", "rna", "--n-top-genes", "8")
    outcome = run("fit", tmp_path / "two.h5mu", "-o", tmp_path / "fitted.h5mu", *QUICK, *options)
    assert outcome.code == 0
    sc.pp.highly_variable_genes(two["rna"], flavor="seurat_v3", n_top_genes=8)
    back = mudata.read_h5mu(tmp_path / "fitted.h5mu")["rna"]
    assert back.uns["ldvae"]["genes"].tolist() == two["rna"].var_names[two["rna"].var["highly_variable"]].tolist()


@pytest.mark.parametrize("own_batch", [False, True], ids=["batch-of-all", "batch-of-its-own"])
def test_genes_of_several_modalities_are_selected_where_they_are_more(
    own_batch: bool, run: Callable[..., Outcome], two: MuData, tmp_path: Path
) -> None:
    pytest.importorskip("skmisc")
    two["rna"].X[:40, :15] *= 3
    two.obs["lab"] = batches = np.repeat(["one", "two"], 40)
    if own_batch:
        # The fit goes by that of the MuData.
        two["rna"].obs["lab"] = np.tile(["one", "two"], 40)
    two.write_h5mu(tmp_path / "two.h5mu")
    options = ("--modalities", "rna=nb", "prot=poisson", "--n-top-genes", "12", "--batch-key", "lab")
    outcome = run("fit", tmp_path / "two.h5mu", "-o", tmp_path / "fitted.h5mu", *QUICK, *options)
    assert outcome.code == 0
    assert "Fitted 12 features of rna; " in outcome.stderr
    assert "Fitted 12 features of prot; " in outcome.stderr
    expected = ad.AnnData(two["rna"].X, pd.DataFrame({"lab": batches}, two.obs_names), two["rna"].var[[]])
    sc.pp.highly_variable_genes(expected, flavor="seurat_v3", n_top_genes=12, batch_key="lab")
    back = mudata.read_h5mu(tmp_path / "fitted.h5mu")
    chosen = expected.var_names[expected.var["highly_variable"]]
    assert back["rna"].uns["ldvae"]["genes"].tolist() == chosen.tolist()
    assert "highly_variable" not in back["prot"].var
    kept = ["one", "two"] * 40 if own_batch else batches.tolist()
    assert back["rna"].obs["lab"].tolist() == kept
