from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from packaging.version import Version

import sc_ldvae

if TYPE_CHECKING:
    from types import ModuleType

ROOMS = {
    "datasets": ["pbmc68k_counts", "simulate"],
    "get": [
        "associations",
        "consensus_loadings",
        "covariate_effects",
        "covariate_effects_se",
        "differential_expression",
        "enrichment",
        "explained_deviance",
        "factors",
        "feature_correlation",
        "history",
        "latent",
        "latent_library_size",
        "likelihood_parameters",
        "loadings",
        "loadings_se",
        "modalities",
        "n_latent",
        "stability",
        "top_genes",
    ],
    "io": ["from_scvi", "open", "read_counts", "to_scvi", "write_result"],
    "nn": [
        "LDVAE",
        "JointLDVAE",
        "CountParameters",
        "Dispersion",
        "Elbo",
        "LatentDistribution",
        "Likelihood",
        "Normal",
        "Posterior",
        "log_nb",
        "log_nb_background",
        "log_bernoulli",
        "log_poisson",
        "log_zinb",
    ],
    "pl": [
        "associations",
        "covariate_effects",
        "embedding",
        "enrichment",
        "explained_deviance",
        "factors",
        "history",
        "latent",
        "loadings",
        "loadings_heatmap",
        "loadings_scatter",
        "modalities",
        "n_latent",
        "posterior_predictive",
        "stability",
    ],
    "tl": [
        "associate",
        "compile_kernels",
        "differential_expression",
        "elbo",
        "enrichment",
        "explained_deviance",
        "extend",
        "ldvae",
        "marginal_log_likelihood",
        "normalized_expression",
        "posterior_predictive",
        "project",
        "reconstruction_error",
        "rename_genes",
        "rotate",
        "select_n_latent",
        "stability",
    ],
}
WRITTEN_BY_USERS = [
    pytest.param(room, name, id=f"{room}.{name}")
    for room, names in ROOMS.items()
    for name in names
    if room != "nn" or name == "LDVAE"
]
each_function = pytest.mark.parametrize(("room", "name"), WRITTEN_BY_USERS)


def loaded_after(code: str) -> set[str]:
    """Top-level modules of a fresh interpreter after `code`."""
    source = Path(sc_ldvae.__file__).parents[1]
    script = f"import sys; sys.path.insert(0, {str(source)!r}); {code}; print('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = done.stdout.split("loaded:")[1].split()
    return {module.split(".")[0] for module in modules}


def sections(docstring: str) -> list[str]:
    return re.findall(r"^(.+)\n-{3,}$", inspect.cleandoc(docstring), flags=re.MULTILINE)


def section(docstring: str, name: str) -> str:
    rest = inspect.cleandoc(docstring).split(f"{name}\n{'-' * len(name)}\n", 1)[1]
    return re.split(r"^.+\n-{3,}$", rest, flags=re.MULTILINE)[0]


def function(room: str, name: str) -> object:
    return getattr(importlib.import_module(f"sc_ldvae.{room}"), name)


def test_import_loads_none_of_the_heavy_packages() -> None:
    loaded = loaded_after("import sc_ldvae")
    assert "sc_ldvae" in loaded
    assert not loaded & {"torch", "scanpy", "matplotlib", "anndata", "mudata", "pandas", "scipy", "numpy", "tqdm"}


def test_rooms_load_torch_and_pictures_at_first_use() -> None:
    loaded = loaded_after(
        "import sc_ldvae; [getattr(sc_ldvae, room) for room in ('datasets', 'get', 'io', 'pl', 'tl')]"
    )
    assert "anndata" in loaded
    assert not loaded & {"torch", "scanpy", "matplotlib", "mudata"}


def test_the_model_knows_torch_only() -> None:
    loaded = loaded_after("import sc_ldvae; sc_ldvae.nn.LDVAE")
    assert "torch" in loaded
    assert not loaded & {"anndata", "scanpy", "matplotlib", "mudata"}


def test_dir_is_the_public_surface() -> None:
    assert sorted(dir(sc_ldvae)) == sorted(["__version__", *ROOMS])
    assert sorted(sc_ldvae.__all__) == sorted(["__version__", *ROOMS])


@pytest.mark.parametrize("name", ["ldvae", "tool", "_private"])
def test_unknown_attributes_are_refused(name: str) -> None:
    with pytest.raises(AttributeError, match=f"^module 'sc_ldvae' has no attribute '{name}'$"):
        getattr(sc_ldvae, name)
    assert not hasattr(sc_ldvae, name)


def test_version_is_that_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"sc-ldvae": "1.2.3"}.__getitem__)
    assert sc_ldvae.__version__ == "1.2.3"


def test_source_that_is_not_installed_has_a_version_below_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "distribution", not_installed)
    assert Version(sc_ldvae.__version__) < Version("0.1.0.dev0")


def not_installed(name: str) -> NoReturn:
    raise metadata.PackageNotFoundError(name)


@pytest.mark.parametrize(("room", "names"), ROOMS.items(), ids=ROOMS)
def test_rooms_hold_their_public_names(room: str, names: list[str]) -> None:
    module: ModuleType = getattr(sc_ldvae, room)
    assert module.__name__ == f"sc_ldvae.{room}"
    assert sorted(module.__all__) == sorted(names)
    assert all(hasattr(module, name) for name in names)
    assert module.__doc__


@each_function
def test_api_page_lists_it(room: str, name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    assert re.search(rf"^ +{room}\.{name}$", page, flags=re.MULTILINE)


@pytest.mark.parametrize("name", ROOMS["pl"])
def test_gallery_shows_it(name: str) -> None:
    gallery = (Path(__file__).parents[2] / "notebooks" / "studies" / "gallery.ipynb").read_text()
    assert f"sc_ldvae.pl.{name}(" in gallery


@each_function
def test_docstring_has_its_sections(room: str, name: str) -> None:
    documented = function(room, name)
    assert documented.__doc__
    present = sections(documented.__doc__)
    if inspect.signature(documented).parameters:
        assert "Parameters" in present
    if not inspect.isclass(documented):
        assert "Returns" in present
    assert "Examples" in present
    assert f">>> sc_ldvae.{room}.{name}(" in documented.__doc__ or re.search(rf">>>.*\b{name}\(", documented.__doc__)


@each_function
def test_docstring_documents_every_parameter(room: str, name: str) -> None:
    documented = function(room, name)
    parameters = list(inspect.signature(documented).parameters)
    if not parameters:
        return
    text = section(documented.__doc__ or "", "Parameters")
    names = [name.strip(" *") for line in re.findall(r"^\S.*$", text, flags=re.MULTILINE) for name in line.split(",")]
    assert names == parameters


@each_function
def test_public_functions_are_annotated(room: str, name: str) -> None:
    signature = inspect.signature(function(room, name))
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter.name


@pytest.mark.parametrize("name", ["ldvae"])
def test_after_data_and_n_latent_arguments_are_keyword_only(name: str) -> None:
    parameters = list(inspect.signature(getattr(sc_ldvae.tl, name)).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["data", "n_latent"]
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters[2:])
