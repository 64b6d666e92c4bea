"""What the fuzz tests share: how many cases they try, and what a call may not touch.

`SC_LDVAE_FUZZ=10000` tries so many cases of each, other ones at each run (`--hypothesis-seed` repeats one); without it
a few, always the same.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numba
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import HealthCheck, Phase, settings
from matplotlib import pyplot as plt
from scipy import sparse

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    Watched = Callable[..., AbstractContextManager[list[BaseException]]]

SOURCE = str(Path(sc_ldvae.__file__).parent)
REFUSALS = (ValueError, TypeError, FloatingPointError, OSError, MemoryError)
NUMPYS = re.compile(r"\bnp\.(str_|bytes_|bool|True_|False_|u?int|float)")
N_CASES = os.environ.get("SC_LDVAE_FUZZ")
FRAMES, MAPPINGS = ("obs", "var"), ("uns", "obsm", "varm", "obsp", "varp", "layers")

settings.register_profile(
    "sc_ldvae",
    max_examples=int(N_CASES or 150),
    derandomize=N_CASES is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    # Each case costs a fit: what explains a failure is the recipe that is left of it.
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.load_profile("sc_ldvae")


@pytest.fixture(scope="session", autouse=True)
def _loaded() -> None:
    """What is imported late has been, for packages add filters of warnings when they are."""
    adata = sc_ldvae.datasets.simulate(30, 8, 2)
    sc_ldvae.tl.ldvae(adata, 2, max_epochs=1, progress=False)
    sc_ldvae.pl.loadings(adata, show=False)
    plt.close("all")


@pytest.fixture(scope="session")
def n_cases() -> int | None:
    """How many were asked for."""
    return None if N_CASES is None else int(N_CASES)


@pytest.fixture(scope="session")
def contents() -> Callable[[object], dict[str, object]]:
    """Everything that an object holds, by the path to it, in a form that compares to the byte."""
    return _contents


@pytest.fixture(scope="session")
def process() -> Callable[[], dict[str, object]]:
    """The settings of the process that are nobody's but the user's."""
    return _process


@pytest.fixture(scope="session")
def watched() -> Watched:
    """A context in which a call is refused in a sentence or gives an answer, and the process stays as it is.

    It takes words of which the sentence has to hold one, and objects that a refusal leaves as they were. The list that
    it gives holds the refusal, if there was one.
    """

    @contextmanager
    def context(words: set[str], *objects: object) -> Iterator[list[BaseException]]:
        before, state = [_contents(one) for one in objects], _process()
        refusals: list[BaseException] = []
        try:
            yield refusals
        except REFUSALS as error:
            _check_sentence(error, words)
            refusals.append(error)
            _check_unchanged(objects, before, error)
        assert not (changed := differences(_process(), state)), f"changed in the process: {changed}"

    return context


@pytest.fixture(scope="session")
def differ() -> Callable[[Mapping[str, object], Mapping[str, object]], list[str]]:
    """The paths at which two contents differ."""
    return differences


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    missing = object()
    return sorted(path for path in one.keys() | other.keys() if one.get(path, missing) != other.get(path, missing))


def _check_unchanged(objects: Sequence[object], before: Sequence[dict[str, object]], error: BaseException) -> None:
    for one, content in zip(objects, before, strict=True):
        changed = differences(_contents(one), content)
        assert not changed, f"{changed} changed by what ended in {error!r}"


def _check_sentence(error: BaseException, words: set[str]) -> None:
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert last.filename.startswith(SOURCE), f"a library's own {type(error).__name__}: {error}"
    text = str(error)
    assert text.rstrip().endswith((".", "?", ")")), f"no sentence: {text}"
    assert not NUMPYS.search(text), f"a value as NumPy writes it: {text}"
    assert any(word in text for word in words), f"names neither argument nor entry: {text}"


def _process() -> dict[str, object]:
    plotted = {f"rcParams[{name!r}]": value for name, value in dict.items(mpl.rcParams)}
    return {
        "warnings": list(warnings.filters),
        "errstate": np.geterr(),
        "numba threads": numba.get_num_threads(),
        "numba layer": numba.config.THREADING_LAYER,
        "torch threads": torch.get_num_threads(),
        "torch dtype": torch.get_default_dtype(),
        "torch device": torch.get_default_device(),
        "torch gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "torch generator": torch.random.get_rng_state().numpy().tobytes(),
        "numpy generator": _plain(np.random.get_state()[1]),  # noqa: NPY002  that it is left alone
        "pandas": _plain(pd._config.config._global_config),
        "figures": plt.get_fignums(),
        "SIGINT": signal.getsignal(signal.SIGINT),
        "logging": {name: logging.getLogger(name).level for name in ("", "sc_ldvae", "anndata", "matplotlib")},
        "trace": sys.gettrace(),
        "environment": dict(os.environ) | {"PYTEST_CURRENT_TEST": ""},
        **plotted,
    }


def _contents(data: object) -> dict[str, object]:
    modalities = getattr(data, "mod", None)
    if isinstance(modalities, Mapping):
        every = {"mod": list(modalities), **_of_annotations(data)}
        return every | {f"{name}/{path}": v for name, one in modalities.items() for path, v in _contents(one).items()}
    if not isinstance(data, AnnData):
        return {"": _plain(data)}
    raw = {} if data.raw is None else {"raw.X": _plain(data.raw.X), "raw.var": _plain(data.raw.var)}
    state = {"is_view": data.is_view, "isbacked": data.isbacked, "X": _plain(data.X)}
    return _of_annotations(data) | state | raw


def _of_annotations(data: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in FRAMES:
        frame = getattr(data, name)
        found[f"{name}.index"] = _plain(frame.index)
        found[f"{name}.columns"] = _plain(frame.columns)
        # By position: names may repeat.
        found |= {f"{name}[{key!r}] {i}": _plain(frame.iloc[:, i]) for i, key in enumerate(frame.columns)}
    for name in MAPPINGS:
        mapping = getattr(data, name, None) or {}
        found[f"{name}.keys"] = list(mapping)
        found |= {f"{name}[{key!r}]": _plain(value) for key, value in mapping.items()}
    return found


def _plain(value: Any) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, pd.DataFrame):
        return [_plain(value.index), _plain(value.columns), [_plain(value.iloc[:, i]) for i in range(value.shape[1])]]
    if isinstance(value, pd.Series | pd.Index | pd.Categorical):
        values = value.tolist()
        return type(value).__name__, str(value.dtype), repr(getattr(value, "name", None)), list(map(repr, values))
    if hasattr(value, "to_memory"):
        return _plain(value.to_memory())
    return _of_array(value) if hasattr(value, "shape") else repr(value)


def _of_array(value: Any) -> object:
    if sparse.issparse(value):
        names = [name for name in ("data", "indices", "indptr", "row", "col") if hasattr(value, name)]
        # A view's have types of their own.
        kind = value.format, isinstance(value, sparse.sparray), value.shape
        return kind, [_plain(getattr(value, name)) for name in names]
    if isinstance(value, np.ma.MaskedArray):
        return "masked", _plain(value.filled(0)), _plain(np.ma.getmaskarray(value))
    if not isinstance(value, np.ndarray | np.generic):
        # On disk.
        value = np.asarray(value[...])
    return value.dtype.str, value.shape, repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
