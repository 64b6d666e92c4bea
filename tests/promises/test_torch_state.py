"""What a program sets in torch for itself reaches no fit, and a fit leaves it as it was."""

from __future__ import annotations

import ast
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import sc_ldvae
from sc_ldvae.nn import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from anndata import AnnData

SOURCE = Path(sc_ldvae.__file__).parent


@pytest.fixture(scope="module")
def counts() -> AnnData:
    return sc_ldvae.datasets.simulate(60, 15, 2, n_batches=2, rng=0)


def answers(counts: AnnData) -> list[np.ndarray]:
    """Of fits, projections, scores and refits."""
    found = []
    for mode in ({}, {"gene_likelihood": "zinb", "dispersion": "gene-cell", "batch_key": "batch"}):
        adata, new = counts.copy(), counts[:9].copy()
        sc_ldvae.tl.ldvae(adata, 2, max_epochs=2, n_hidden=8, device="cpu", progress=False, **mode)
        sc_ldvae.tl.project(new, adata, progress=False)
        scores = (
            sc_ldvae.tl.elbo(adata, progress=False),
            sc_ldvae.tl.marginal_log_likelihood(adata, n_samples=2, progress=False),
        )
        found += [adata.obsm["X_ldvae"], adata.varm["ldvae_loadings"], new.obsm["X_ldvae"], *scores]
    sc_ldvae.tl.stability(adata, 2, progress=False)
    return [*map(np.asarray, found), adata.uns["ldvae_stability"]["score"]]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def low_precision(*, newer: bool) -> Iterator[None]:
    """Of products of matrices, as torch's tuning guides recommend."""
    products: Any = torch.backends.cuda.matmul
    if newer and not hasattr(products, "fp32_precision"):
        pytest.skip("this torch knows the older way only")
    if newer:
        products.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision("medium")
    try:
        yield
        assert products.fp32_precision == "tf32" if newer else torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "default-device": lambda: default_device("meta"),
    "no-grad": lambda: torch.set_grad_enabled(False),
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "precision": lambda: low_precision(newer=False),
}


@pytest.mark.parametrize("engine", ["fused", "autograd"])
def test_no_state_of_torch_changes_a_bit(engine: str, counts: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(STATES)
    if engine == "autograd":
        monkeypatch.setattr("sc_ldvae.engine._engine.can_be_fused", lambda _: False)
        names = ["float64", "inference", "autocast"]
    expected = answers(counts)
    for name in names:
        with STATES[name]():
            got = answers(counts)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name, strict=True)


@pytest.mark.parametrize("newer", [True, False])
def test_products_are_exact_and_their_setting_is_put_back(newer: bool) -> None:
    with low_precision(newer=newer), undisturbed(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"


def test_global_generators_are_not_asked(counts: AnnData) -> None:
    legacy = np.random.get_state()  # noqa: NPY002  it is to stay as it is
    before = torch.random.get_rng_state()
    answers(counts)
    assert torch.equal(torch.random.get_rng_state(), before)
    after = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(one, other) for one, other in zip(legacy, after, strict=True))


# What makes a tensor, a module or a generator out of nothing, and what it has to be told.
BOTH = {"dtype", "device"}
FACTORIES: dict[str, set[str]] = {
    **dict.fromkeys(
        ["zeros", "ones", "empty", "full", "eye", "arange", "linspace", "logspace", "rand", "randn", "randint"], BOTH
    ),
    **dict.fromkeys(["tensor", "as_tensor", "asarray", "scalar_tensor", "randperm", "normal", "Linear"], BOTH),
    **dict.fromkeys(["BatchNorm1d", "LayerNorm", "Embedding", "Bilinear", "skip_init"], BOTH),
    "Generator": {"device"},
    "Tensor": BOTH,
}


def untold(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each such call that leaves something to torch's state."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        if owner not in {"torch", "nn", "torch.nn", "nn.utils"} or name not in FACTORIES:
            continue
        told = {keyword.arg for keyword in node.keywords}
        told |= {"device"} if name == "Generator" and node.args else set()
        told |= BOTH if any(k.arg is None and ast.unparse(k.value) == "FACTORY" for k in node.keywords) else set()
        if FACTORIES[name] - told:
            yield node.lineno, f"{owner}.{name}"


def test_everything_that_is_made_is_told_its_type_and_device() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line} {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, name in untold(ast.parse(path.read_text("utf-8")))
    ]
    assert not found


@pytest.mark.parametrize(
    ("code", "n"),
    [
        ("torch.zeros(3)", 1),
        ("torch.zeros(3, dtype=d)", 1),
        ("torch.zeros(3, dtype=d, device=e)", 0),
        ("torch.full((3,), 1.0, **FACTORY)", 0),
        ("nn.Parameter(torch.ones(3))", 1),
        ("nn.Linear(3, 2)", 1),
        ("torch.Generator()", 1),
        ("torch.Generator(device)", 0),
        ("np.zeros(3)", 0),
    ],
)
def test_what_is_left_to_torch_is_noticed(code: str, n: int) -> None:
    assert len(list(untold(ast.parse(code)))) == n
