"""Sphinx configuration."""

from __future__ import annotations

import re
import shutil
from html import escape
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, NoReturn
from unittest.mock import patch

import ziamath
from docutils.nodes import SkipNode

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

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
html_css_files = ["custom.css"]
html_math_renderer = "svg"
FORMULA_SIZE = 17
ziamath.config.svg2 = False  # no ids, which pages of many formulas would have many times
html_theme_options = {
    # The sidebar has the search.
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "show_navbar_depth": 1,
    "use_download_button": False,
}


def write_svg(translator: HTML5Translator, node: Element) -> NoReturn:
    """Draw a formula now, so that the page needs neither a script from the network nor a font for it."""
    latex, is_block = node.astext(), node.tagname == "math_block"
    formula = ziamath.Latex(latex, size=FORMULA_SIZE, inline=not is_block, color="currentColor", margin=0)
    tag, style = ("div", "") if is_block else ("span", f' style="vertical-align: {formula.getyofst():.2f}px"')
    label = escape(" ".join(latex.split()))
    translator.body.append(f'<{tag} class="formula" role="img" aria-label="{label}"{style}>{formula.svg()}</{tag}>')
    raise SkipNode


def returns_as_they_are(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Hide "Returns" from napoleon, which reads each of its paragraphs as a type with a description.

    Ours are prose and lists of entries. So the section becomes a field of its own, behind two empty lines, which end
    the section before it.
    """
    del app, what, name, obj, options
    section = re.compile(r"^Returns\n-+\n(.*?)(?=^\S.*\n-{3,}$|\Z)", re.MULTILINE | re.DOTALL)
    text = section.sub(lambda found: f"\n\n:returns:\n{indent(found[1], '    ')}\n", "\n".join(lines))
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_html_math_renderer("svg", (write_svg, None), (write_svg, None))
    # before napoleon, and before what sphinx-autodoc-typehints does for it, at 499
    app.connect("autodoc-process-docstring", returns_as_they_are, priority=400)
