"""The rooms of `docs/design.md`: imports go down only, by the front door, and some rooms do without some packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import pytest

import sc_ldvae

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(sc_ldvae.__file__).parent
# From the top down; rooms on one line do not know each other.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("pl", "tl", "io"),
    ("get",),
    ("inputs",),
    ("fit",),
    ("assess",),
    ("engine",),
    ("decode",),
    ("record",),
    ("nn", "stores"),
    ("counts",),
    ("datasets",),
    ("_options",),
    ("likelihoods",),
    ("kernels",),
    ("_arguments", "_products", "_tables"),
    ("_bounds", "_forks", "_lazy", "_memory", "_quiet", "_restored", "_said", "_typing"),
)
HEIGHT = {room: len(FLOORS) - i for i, rooms in enumerate(FLOORS) for room in rooms}
# Packages that a room does without: itself, and with all that it imports.
STRANGERS = {
    "kernels": {"torch", "anndata", "scanpy", "matplotlib"},
    "likelihoods": {"torch", "anndata", "scanpy", "matplotlib"},
    "counts": {"torch", "anndata", "scanpy", "matplotlib"},
    "stores": {"torch", "scanpy", "matplotlib"},
    "nn": {"anndata", "scanpy", "matplotlib"},
    "engine": {"anndata", "scanpy", "matplotlib"},
    "record": {"torch", "scanpy", "matplotlib"},
    "decode": {"torch", "scanpy", "matplotlib"},
    "assess": {"torch", "scanpy", "matplotlib"},
    "fit": {"scanpy", "matplotlib"},
    "inputs": {"scanpy", "matplotlib"},
    "get": {"scanpy", "matplotlib"},
    "tl": {"scanpy", "matplotlib"},
}
# These get arrays: they name no AnnData, though what they import may.
ARRAYS_ALONE = ("decode", "assess", "fit")
LONGEST_FILE, LONGEST_MODEL = 300, 500
MOST_ARGUMENTS = 12


class Import(NamedTuple):
    path: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE.parent)}:{self.line} imports {self.module}"


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def imports() -> tuple[Import, ...]:
    """Every import of the package, also within functions and for types alone."""
    return tuple(one for path in sorted(SOURCE.rglob("*.py")) for one in imports_in(path))


def imports_in(path: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(path, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = [f"sc_ldvae.{alias.name}" for alias in node.names] if node.module == "sc_ldvae" else [node.module]
            yield from (Import(path, node.lineno, name) for name in names)


def own_imports() -> list[tuple[Import, str, str]]:
    """Of other rooms: the import, the room that it stands in, and the one that it names."""
    found = []
    for one in imports():
        parts = one.module.split(".")
        if parts[0] == "sc_ldvae" and len(parts) > 1 and room_of(one.path) not in {parts[1], "__init__"}:
            found.append((one, room_of(one.path), parts[1]))
    return found


def listed(wrong: list[Import]) -> str:
    return "\n".join(map(str, wrong))


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(path) for path in SOURCE.rglob("*.py")} - {"__init__"}
    assert rooms == set(HEIGHT)


def test_imports_go_down_only() -> None:
    wrong = [one for one, room, named in own_imports() if HEIGHT[named] >= HEIGHT[room]]
    assert not wrong, listed(wrong)


def test_rooms_are_entered_by_their_front_door() -> None:
    """No private module of another room; base modules have no room."""
    wrong = [one for one, _, named in own_imports() if not named.startswith("_") and one.module.count(".") > 1]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("room", STRANGERS)
def test_rooms_do_without(room: str) -> None:
    wrong = [one for one in imports() if room_of(one.path) == room and one.module.split(".")[0] in STRANGERS[room]]
    wrong = [one for one in wrong if not only_in_functions_or_types(one, room)]
    assert not wrong, listed(wrong)


def only_in_functions_or_types(one: Import, room: str) -> bool:
    """Rooms that work on AnnData load torch where they need it."""
    return room in {"inputs", "get", "tl"} and one.module.split(".")[0] == "torch"


@pytest.mark.parametrize("room", ARRAYS_ALONE)
def test_rooms_of_arrays_name_no_anndata(room: str) -> None:
    wrong = [
        one for one in imports() if room_of(one.path) == room and one.module.split(".")[0] in {"anndata", "mudata"}
    ]
    assert not wrong, listed(wrong)


@pytest.mark.parametrize("strangers", sorted({tuple(sorted(missing)) for missing in STRANGERS.values()}), ids="-".join)
def test_loading_rooms_loads_none_of_their_strangers(strangers: tuple[str, ...]) -> None:
    """Rooms that do without the same packages, in one fresh interpreter."""
    modules = [
        ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for room, missing in STRANGERS.items()
        if missing == set(strangers)
        for path in sorted((SOURCE / room).rglob("*.py"))
        if path.stem != "__init__"
    ]
    code = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); import {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert modules
    assert not loaded & set(strangers)


@cache
def functions() -> tuple[tuple[Path, ast.FunctionDef], ...]:
    return tuple(
        (path, node)
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )


def test_functions_are_short() -> None:
    lengths = []
    for _, node in functions():
        body = node.body[ast.get_docstring(node) is not None :]
        lengths.append(body[-1].end_lineno - body[0].lineno + 1 if body else 0)
    assert median(lengths) <= 8
    assert sorted(lengths)[round(0.9 * len(lengths))] <= 20


def test_files_are_short() -> None:
    lengths = {path.relative_to(SOURCE): path.read_text().count("\n") for path in SOURCE.rglob("*.py")}
    model = Path("nn", "_ldvae.py")
    assert lengths.pop(model) <= LONGEST_MODEL
    assert {path: n for path, n in lengths.items() if n > LONGEST_FILE} == {}


def test_functions_take_few_arguments() -> None:
    """But for what users call, the kernels and the reference's constructor."""
    many = {
        f"{path.relative_to(SOURCE)}: {node.name}"
        for path, node in functions()
        if len(node.args.args) + len(node.args.kwonlyargs) > MOST_ARGUMENTS
        if room_of(path) not in {"tl", "get", "pl", "kernels"}
    }
    assert many == {f"{Path('nn', '_ldvae.py')}: __init__"}


@pytest.mark.parametrize("room", ["tl", "pl"])
def test_one_public_function_a_file(room: str) -> None:
    public: dict[str, list[str]] = {}
    names = getattr(sc_ldvae, room).__all__
    for path, node in functions():
        if path.parent.name == room and node.name in names:
            public.setdefault(path.stem, []).append(node.name)
    assert public == {f"_{name}": [name] for name in names}
