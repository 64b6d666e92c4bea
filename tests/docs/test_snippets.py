"""The Python of the README and of the pages runs as it stands there, page by page, from the first block to the last."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
# A comment in front of a block that says what it takes beside the extra `test`, or why nobody runs it.
NEEDS, NOT_RUN = re.compile(r"<!-- needs: (\w+) -->"), re.compile(r"<!-- not run: .+ -->")


class Block(NamedTuple):
    line: int
    code: str
    comment: str


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks of Python of a page, each with the line above it."""
    above, block = "", None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if block is None and line == "```python":
            block = Block(number, "", above)
        elif block is not None and line == "```":
            yield block
            block = None
        elif block is not None:
            block = block._replace(code=f"{block.code}{line}\n")
        above = line


def counts_files() -> None:
    """Write the files that pages name: raw counts in h5ad and zarr."""
    adata = sc_ldvae.datasets.pbmc68k_counts()
    adata.var["highly_variable"] = np.arange(adata.n_vars) % 2 == 0
    adata.obs["donor"] = pd.Categorical(np.where(np.arange(adata.n_obs) % 2, "one", "two"))
    for name in ("counts.h5ad", "everything.h5ad", "donor1.h5ad", "donor2.h5ad"):
        adata.write_h5ad(name)
    for name in ("donor2.zarr", "donor3.zarr"):
        adata.write_zarr(name)


def joint_file() -> None:
    """Write the file with three modalities, some of whose cells lack two of them."""
    rna = sc_ldvae.datasets.pbmc68k_counts()
    modalities = {"rna": AnnData(rna.X, pd.DataFrame(index=rna.obs_names), pd.DataFrame(index=rna.var_names))}
    for name, n_vars in {"prot": 12, "atac": 100}.items():
        X = sc_ldvae.datasets.simulate(n_obs=rna.n_obs, n_vars=n_vars, n_latent=3).X
        var_names = [f"{name}{i}" for i in range(n_vars)]
        modalities[name] = AnnData(X, pd.DataFrame(index=rna.obs_names), pd.DataFrame(index=var_names))[100:].copy()
    mudata.MuData(modalities).write_h5mu("cells.h5mu")


PAGES = [
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if any(blocks(path))
]
# The files that a page names and does not write itself.
GIVEN: dict[str, Callable[[], None]] = {
    "README.md": counts_files,
    "docs/scale.md": counts_files,
    "docs/joint.md": joint_file,
}


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [found[1] for block in blocks(ROOT / page) if (found := NEEDS.fullmatch(block.comment))]
    missing = [package for package in needs if find_spec(package) is None]
    if missing:
        # Once is enough: CI runs these pages where everything is installed.
        pytest.skip(f"{missing[0]} is not installed")
    monkeypatch.chdir(tmp_path)
    GIVEN.get(page, lambda: None)()
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(ROOT / page):
        if NOT_RUN.fullmatch(block.comment):
            continue
        # Empty lines before it: a traceback names the line of the page, and shows it.
        code = compile("\n" * block.line + block.code, ROOT / page, "exec")
        exec(code, namespace)  # noqa: S102  the pages are our own
