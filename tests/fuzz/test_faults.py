"""Interrupts and failures at any line: an object is as before or as after, and the process as it was.

A trace function raises at one line after the other of what writes a result, in the frames of anndata and pandas, too.
`SC_LDVAE_FUZZ` says at how many of each tool and form of an object (a write into a view has about 10,000), and brings
as many real interrupts of each form; without it there are a few, and none of those.
"""

from __future__ import annotations

import linecache
import os
import re
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sc_ldvae
from sc_ldvae import datasets, record, tl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import CodeType, FrameType

    Tool = Callable[[AnnData | mudata.MuData, dict[str, Any]], object]

SOURCE = Path(sc_ldvae.__file__).parent
FITTING: dict[str, Any] = {"max_epochs": 1, "n_hidden": 4, "progress": False}
QUIET = {"progress": False}
NET = pd.DataFrame({"source": ["A"] * 4 + ["B"] * 4, "target": [f"gene{i}" for i in range(8)], "weight": 1.0})
FORMS = ("AnnData", "view", "MuData")
# So many points of a tool and a form are tried if no number is asked for.
A_FEW = 6
GLOBAL = re.compile(r"set_num_threads|signal\.signal|errstate|catch_warnings|rc_context|fork_rng|restored\(|quiet\(")

TOOLS: dict[str, Tool] = {
    "ldvae": lambda data, m: tl.ldvae(data, 2, batch_key="batch", rng=1, **FITTING, **m),
    "project": lambda data, m: tl.project(data, data, key_added="again", **QUIET, **m),
    "rotate": lambda data, m: tl.rotate(data, key_added="turned", **m),
    "rename_genes": lambda data, m: tl.rename_genes(data, {"gene0": "CD3E"}, **m),
    "associate": lambda data, m: tl.associate(data, ["batch"], **m),
    "enrichment": lambda data, m: tl.enrichment(data, NET, tmin=1, **m),
    "stability": lambda data, m: tl.stability(data, 2, **QUIET, **m),
    "explained_deviance": lambda data, m: tl.explained_deviance(data, "batch", cells="all", **QUIET, **m),
    "elbo": lambda data, m: tl.elbo(data, n_samples=1, key_added="elbo", **QUIET, **m),
    "marginal_log_likelihood": lambda data, m: tl.marginal_log_likelihood(
        data, n_samples=1, key_added="p", **QUIET, **m
    ),
    "reconstruction_error": lambda data, m: tl.reconstruction_error(data, n_samples=1, key_added="e", **QUIET, **m),
    "posterior_predictive": lambda data, m: tl.posterior_predictive(data, key_added="drawn", **QUIET, **m),
    "normalized_expression": lambda data, m: tl.normalized_expression(data, key_added="shown", **QUIET, **m),
    "select_n_latent": lambda data, m: tl.select_n_latent(data, [1, 2], 1, **FITTING, **m),
    "differential_expression": lambda data, m: tl.differential_expression(data, "batch", **QUIET, **m),
}


class Subject(NamedTuple):
    """What a tool is called upon, the AnnData in which it writes, and all that can be looked at afterwards."""

    data: AnnData | mudata.MuData
    adata: AnnData
    seen: tuple[Any, ...]

    @property
    def modality(self) -> dict[str, Any]:
        return {} if self.data is self.adata else {"modality": "rna"}


@pytest.fixture(scope="module")
def base() -> AnnData:
    adata = datasets.simulate(24, 10, 2, n_batches=2, mean_library=150, rng=2)
    adata.layers["counts"] = adata.X.copy()
    tl.ldvae(adata, 2, batch_key="batch", **FITTING)
    for tool in TOOLS.values():
        # Kernels are compiled, which takes long enough where nobody counts the lines.
        tool(adata.copy(), {})
    return adata


def subject(base: AnnData, form: str) -> Subject:
    adata = base.copy()
    if form == "view":
        view = adata[2:]
        return Subject(view, view, (view, adata))
    if form == "MuData":
        both = mudata.MuData({"rna": adata, "other": AnnData(np.ones((adata.n_obs, 2)), obs=adata.obs[[]])})
        return Subject(both, both.mod["rna"], (both,))
    return Subject(adata, adata, (adata,))


class Trace:
    """Counts lines, and raises at one of them.

    Parameters
    ----------
    counts
        Which frames: what has been called by these, or these alone.
    whole_extent
        Everything that they call is counted, too.
    at
        The line event at which `error` is raised; never for 0.
    """

    def __init__(
        self,
        counts: Callable[[CodeType], bool],
        *,
        whole_extent: bool,
        at: int = 0,
        error: type[BaseException] | None = None,
    ) -> None:
        self._counts, self._whole_extent, self._at, self._error = counts, whole_extent, at, error
        self._entered: FrameType | None = None
        self.lines: list[tuple[str, int]] = []

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if self._entered is not None and self._whole_extent:
            return self._line
        if event == "call" and self._counts(frame.f_code):
            self._entered = self._entered or frame
            return self._line
        return None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "return" and frame is self._entered:
            self._entered = None
        if event == "line":
            self.lines.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.lines) == self._at:
                sys.settrace(None)
                assert self._error is not None
                raise self._error
        return self._line

    def over(self, call: Callable[[], object]) -> BaseException | None:
        """What the call ends in."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            call()
        except BaseException as error:  # noqa: BLE001  interrupts are what this is about
            return error
        finally:
            sys.settrace(before)
        return None


def is_write(code: CodeType) -> bool:
    return code is record.write.__code__


def is_own(code: CodeType) -> bool:
    return code.co_filename.startswith(str(SOURCE))


def points(n: int, n_cases: int | None) -> Iterable[int]:
    return range(1, n + 1, max(1, n // (n_cases or A_FEW)))


def error_at(point: int) -> type[BaseException]:
    return MemoryError if point % 3 == 0 else KeyboardInterrupt


def entries_of(tool: Tool, base: AnnData, form: str) -> Mapping[str, Any]:
    """What the tool gives to `record.write`."""
    given: list[Mapping[str, Any]] = []
    one = subject(base, form)

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and is_write(frame.f_code):
            given.append(frame.f_locals["entries"])

    before = sys.gettrace()
    sys.settrace(look)
    try:
        tool(one.data, one.modality)
    finally:
        sys.settrace(before)
    (entries,) = given
    return entries


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TOOLS)
def test_a_write_is_whole_or_not_at_all(
    name: str, form: str, base: AnnData, n_cases: int | None, contents: Any, process: Any, differ: Any
) -> None:
    entries = entries_of(TOOLS[name], base, form)
    one, count = subject(base, form), Trace(is_write, whole_extent=True)
    before = [contents(part) for part in one.seen]
    assert count.over(lambda: record.write(one.adata, entries)) is None
    after = [contents(part) for part in one.seen]
    assert after != before
    state = process()
    for point in points(len(count.lines), n_cases):
        other = subject(base, form)
        trace = Trace(is_write, whole_extent=True, at=point, error=error_at(point))
        ended = trace.over(lambda other=other: record.write(other.adata, entries))
        now = [contents(part) for part in other.seen]
        where = f"{trace.lines[-1]}, which ended in {ended!r}"
        assert now in (before, after), f"{differ(now[0], before[0])} is half written after {where}"
        assert ended is not None or now == after, f"lost without a word after {where}"
        # Interrupts wait here. What else strikes in the end of a context manager of Python's own, or at the line of a
        # `with` before it, leaves its setting.
        own = Path(trace.lines[-1][0]).name in {"contextlib.py", "warnings.py"}
        excused = {"warnings", "errstate"} if own or "with " in linecache.getline(*trace.lines[-1]) else set()
        assert not (changed := set(differ(process(), state)) - excused), f"{changed} changed after {where}"
        warnings.filters[:] = state["warnings"]
        np.seterr(**state["errstate"])


def state_lines(lines: list[tuple[str, int]]) -> list[int]:
    """First and last event of each line of ours in a file that changes what belongs to the process; the rest thinly.

    The last one of a `with` is not among them: it lies before the end of the context, where Python looks for no
    interrupt.
    """
    touching = {str(path) for path in SOURCE.rglob("*.py") if GLOBAL.search(path.read_text())}
    first, last = {}, {}
    for event, line in enumerate(lines, 1):
        first.setdefault(line, event)
        last[line] = event
    last = {line: event for line, event in last.items() if "with " not in linecache.getline(*line)}
    found = {event for line in first if line[0] in touching for event in (first[line], last.get(line, first[line]))}
    others = [first[line] for line in first if line[0] not in touching]
    return sorted(found | set(others[::20]))


@pytest.mark.parametrize("form", ["AnnData", "view"])
@pytest.mark.parametrize("name", TOOLS)
def test_no_line_of_ours_leaves_a_setting_or_half_an_object(
    name: str, form: str, base: AnnData, n_cases: int | None, contents: Any, process: Any, differ: Any
) -> None:
    one, count = subject(base, form), Trace(is_own, whole_extent=False)
    before = [contents(part) for part in one.seen]
    assert count.over(lambda: TOOLS[name](one.data, one.modality)) is None
    after = [contents(part) for part in one.seen]
    state, events = process(), state_lines(count.lines)
    # Turned by the name, so that not every tool is tried at the same lines.
    for event in events[len(name) % 7 :: max(1, len(events) // (n_cases or A_FEW // 2))]:
        other = subject(base, form)
        trace = Trace(is_own, whole_extent=False, at=event, error=error_at(event))
        ended = trace.over(lambda other=other: TOOLS[name](other.data, other.modality))
        now = [contents(part) for part in other.seen]
        where = f"{trace.lines[-1]}, which ended in {ended!r}"
        assert now in (before, after), f"{differ(now[0], before[0])} is half written after {where}"
        assert not (changed := differ(process(), state)), f"{changed} changed after {where}"


@pytest.mark.skipif("SC_LDVAE_FUZZ" not in os.environ, reason="for as long as is asked for")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", FORMS)
def test_real_interrupts(form: str, base: AnnData, n_cases: int, contents: Any, process: Any, differ: Any) -> None:
    rng, names = np.random.default_rng(len(form)), list(TOOLS)
    results: dict[str, list[Any]] = {}
    before, state, n_struck = [contents(part) for part in subject(base, form).seen], process(), 0
    for _ in range(n_cases):
        name = str(rng.choice(names))
        if name not in results:
            done = subject(base, form)
            start = time.perf_counter()
            TOOLS[name](done.data, done.modality)
            results[name] = [contents(part) for part in done.seen], time.perf_counter() - start
        after, seconds = results[name]
        other = subject(base, form)
        strike = threading.Timer(float(rng.uniform(0, 1.1 * seconds)), os.kill, (os.getpid(), signal.SIGINT))
        try:
            strike.start()
            TOOLS[name](other.data, other.modality)
            strike.join()
            time.sleep(0.01)
        except KeyboardInterrupt:
            n_struck += 1
        now = [contents(part) for part in other.seen]
        assert now in (before, after), f"{differ(now[0], before[0])} is half written by {name}"
        assert not (changed := differ(process(), state)), f"{changed} changed by {name}"
    # Some are lost in callbacks from which nothing can be raised.
    assert n_struck > n_cases / 2
