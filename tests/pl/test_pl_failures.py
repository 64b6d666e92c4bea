"""A plot that fails leaves nothing behind: no figure, no file, no setting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from sc_ldvae import pl, tl
from sc_ldvae.pl import _save

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from anndata import AnnData
    from mudata import MuData

ROOM = str(Path(pl.__file__).parent)
# What a plot can't do without, beside the object.
ASKED = {"latent": {"groupby": "batch"}}
each_plot = pytest.mark.parametrize("name", pl.__all__)


@pytest.fixture(scope="module")
def everything(assessed: AnnData, write_enrichment: Callable[..., None]) -> AnnData:
    adata = assessed.copy()
    write_enrichment(adata, ["one", "two"])
    tl.posterior_predictive(adata, key_added="posterior_predictive", progress=False)
    return adata


@pytest.fixture(scope="module")
def drawable(everything: AnnData, joint: MuData) -> dict[str, AnnData | MuData]:
    """By the name of the plot."""
    return dict.fromkeys(pl.__all__, everything) | {"modalities": joint}


@pytest.fixture
def state() -> Iterator[None]:
    """Holds what pyplot knows before and after a test, with a figure of the user's own."""
    own, axis = plt.subplots()
    before = plt.get_fignums(), dict(plt.rcParams), plt.get_backend()
    yield
    assert (plt.get_fignums(), dict(plt.rcParams), plt.get_backend()) == before
    assert plt.gcf() is own
    assert plt.gca() is axis


def fail(error: BaseException) -> Callable[..., None]:
    def raising(*_: object, **__: object) -> None:
        raise error

    return raising


@pytest.mark.usefixtures("state")
@each_plot
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=repr)
def test_no_figure_stays_where_saving_fails(
    error: BaseException, name: str, drawable: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figure, "savefig", fail(error))
    with pytest.raises(type(error)):
        getattr(pl, name)(drawable[name], show=False, save=tmp_path / "plot.png", **ASKED.get(name, {}))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("state")
def test_no_figure_stays_where_showing_fails(everything: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        pl.factors(everything, show=True)


@pytest.mark.usefixtures("state")
def test_no_figure_stays_after_an_interrupt_in_any_line(everything: AnnData) -> None:
    # Every third line, for the sake of time.
    n_lines, tripped = 0, True
    while tripped:
        n_lines += 3
        tripped = _interrupted_after(n_lines, lambda: pl.history(everything, show=False))
        if tripped:
            assert len(plt.get_fignums()) == 1, f"line {n_lines}"
    assert n_lines > 40
    plt.close(plt.gcf())


def _interrupted_after(n_lines: int, call: Callable[[], object]) -> bool:
    left = n_lines

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        left -= event == "line"
        if not left:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_plot_that_works_leaves_its_figure(fitted: AnnData) -> None:
    axis = pl.history(fitted, show=False)
    assert plt.gcf() is axis.figure


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("save", "error", "said"),
    [
        pytest.param(True, TypeError, "save=True is a bool, but must be the name", id="true"),
        pytest.param(3, TypeError, "save=3 is a int", id="number"),
        pytest.param(b"plot.png", TypeError, "save=b'plot.png' is a bytes", id="bytes"),
        pytest.param("", ValueError, "save='' names no file", id="empty"),
        pytest.param(".png", ValueError, "save='.png' names no file", id="suffix-alone"),
        pytest.param("a\0b.png", ValueError, "names no file", id="nul"),
        pytest.param("plot.xyz", ValueError, "save='plot.xyz' has the suffix '.xyz', but must", id="format"),
        pytest.param("absent/plot.png", FileNotFoundError, "there is no folder absent. Make it first", id="no-folder"),
        pytest.param("folder.png", IsADirectoryError, "save='folder.png' is a folder", id="folder"),
        pytest.param("file.txt/plot.png", OSError, "save='file.txt/plot.png' can't be written", id="below-a-file"),
    ],
)
def test_wrong_save_is_refused_before_anything_is_drawn(
    save: object,
    error: type[Exception],
    said: str,
    fitted: AnnData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    Path("file.txt").touch()
    monkeypatch.setattr(plt, "figure", lambda *_, **__: pytest.fail("drawn before save was checked"))
    with pytest.raises(error) as raised:
        pl.loadings(fitted, show=False, save=save)
    assert said in str(raised.value)
    assert {path.name for path in Path().rglob("*")} == {"folder.png", "file.txt"}


@each_plot
def test_every_plot_looks_at_save_first(name: str) -> None:
    with pytest.raises(TypeError, match=r"^save=True is a bool"):
        getattr(pl, name)("no data", save=True)


@pytest.mark.usefixtures("state")
def test_too_long_a_name_is_refused(fitted: AnnData, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^save=.*can't be written: .*File name too long"):
        pl.history(fitted, show=False, save=tmp_path / f"{'x' * 300}.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("state")
def test_a_full_disk_leaves_no_half_file(fitted: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_save, "copyfile", half)
    with pytest.raises(OSError, match=r"^save=.*plot\.png' can't be written: .*No space left"):
        pl.history(fitted, show=False, save=tmp_path / "plot.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("state")
def test_a_figure_that_is_too_large_leaves_the_old_file(
    fitted: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plot.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", fail(ValueError("Image size is too large.")))
    with pytest.raises(ValueError, match=r"^save=.*plot\.png' can't be drawn: Image size is too large\. Show less"):
        pl.history(fitted, show=False, save=path)
    assert path.read_bytes() == b"old"


def test_a_name_without_suffix_gets_that_of_matplotlib(fitted: AnnData, tmp_path: Path) -> None:
    pl.history(fitted, show=False, save=tmp_path / "plot")
    assert [path.name for path in tmp_path.iterdir()] == [f"plot.{plt.rcParams['savefig.format']}"]


def test_saving_follows_a_link(fitted: AnnData, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "there" / "plot.png")
    pl.history(fitted, show=False, save=tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "there" / "plot.png").stat().st_size > 1000


def removed() -> list[object]:
    axes = plt.subplots(1, 3)[1]
    for axis in axes:
        axis.remove()
    return list(axes)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        pytest.param(lambda: [None] * 3, TypeError, "ax holds None, a NoneType, but must be", id="none"),
        pytest.param(lambda: 3, TypeError, "ax holds 3, a int", id="number"),
        pytest.param(lambda: "axes", TypeError, "ax holds 'axes', a str", id="text"),
        pytest.param(plt.figure, TypeError, "a Figure, but must be", id="figure"),
        pytest.param(lambda: plt.figure().subplot_mosaic("abc"), TypeError, "a dict, but must be", id="dict"),
        pytest.param(lambda: [plt.subplots()[1], [1, [2]]], TypeError, "ax holds 1, a int", id="ragged"),
        pytest.param(list, ValueError, "ax holds 0 axes, but", id="empty"),
        pytest.param(removed, ValueError, "ax holds axes that were taken out of their figure", id="removed"),
        pytest.param(
            lambda: [plt.figure().add_subplot(projection="polar")] * 3, ValueError, "ax holds polar axes", id="polar"
        ),
        pytest.param(
            lambda: [plt.figure().add_subplot(projection="3d")] * 3, ValueError, "ax holds 3d axes", id="space"
        ),
    ],
)
def test_wrong_axes_are_refused(make: Callable[[], Any], error: type[Exception], said: str, fitted: AnnData) -> None:
    ax = make()
    before = plt.get_fignums()
    with pytest.raises(error) as raised:
        pl.loadings(fitted, ax=ax, show=False)
    assert said in str(raised.value)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("name", [name for name in pl.__all__ if name != "factors"])
def test_every_plot_looks_at_its_axes(name: str, drawable: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"^ax holds 5, a int, but must be matplotlib Axes"):
        getattr(pl, name)(drawable[name], ax=5, show=False, **ASKED.get(name, {}))
    assert not plt.get_fignums()


def test_axes_of_nested_lists_and_of_figures_without_window(fitted: AnnData) -> None:
    one, two, three = Figure().subplots(1, 3)
    assert pl.loadings(fitted, ax=[one, [two, three]], show=False) == [one, two, three]
    assert pl.loadings(fitted, 1, ax=np.array(one, dtype=object), show=False) == [one]
    assert not plt.get_fignums()
