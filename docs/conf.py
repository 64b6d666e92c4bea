"""Sphinx configuration."""

from __future__ import annotations

import shutil
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).parent

_metadata = metadata("sc-ldvae")
project = _metadata["Name"]
author = _metadata["Author"]
copyright = f"2026, {author}"  # noqa: A001
version = release = _metadata["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "literal"

# Sphinx reads only what lies below docs/, so the notebooks are copied here; git ignores the copies.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))

# CI executes the notebooks; the docs show the outputs that are stored in them.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# The aliases of sc_ldvae._typing exist for type checkers only; the docs resolve annotations that name them. What the
# aliases are made of is imported first, so that it loads as it always does.
for name in ("anndata", "matplotlib.axes", "mudata", "sc_ldvae"):
    import_module(name)
with patch("typing.TYPE_CHECKING", new=True):
    import_module("sc_ldvae._typing")

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
typehints_defaults = "braces"

html_theme = "sphinx_book_theme"
html_title = "sc-ldvae"
html_static_path = ["_static"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_navbar_depth": 1,
    "use_download_button": False,
}
