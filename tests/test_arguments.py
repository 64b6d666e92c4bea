"""The door of public functions."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sc_ldvae._arguments import door, kinds_of
from sc_ldvae._typing import UNSET

PUBLIC = [
    (room, name)
    for room in ("tl", "get", "pl", "io", "datasets")
    for name in import_module(f"sc_ldvae.{room}").__all__
    if inspect.isfunction(getattr(import_module(f"sc_ldvae.{room}"), name))
]


class Unreadable:
    """What a function can't have been meant to take."""


def passed(annotation: str, value: Any) -> Any:
    """What a function gets of `value` for an argument of this annotation."""

    def function(argument: Any) -> Any:
        return argument

    function.__annotations__["argument"] = annotation
    return door(function)(value)


@pytest.mark.parametrize(("room", "name"), PUBLIC)
def test_arguments_are_looked_at_once(room: str, name: str) -> None:
    source = inspect.getsource(getattr(import_module(f"sc_ldvae.{room}"), name))
    assert [line for line in source.splitlines() if line.startswith("@")] == ["@plot" if room == "pl" else "@door"]


@pytest.mark.parametrize(("room", "name"), PUBLIC)
def test_every_public_function_has_it(room: str, name: str) -> None:
    """Shown by an argument that no annotation allows, for each of those that the function does not look at itself."""
    function = getattr(import_module(f"sc_ldvae.{room}"), name)
    parameters = inspect.signature(function).parameters
    required = {one.name: "x" for one in parameters.values() if one.default is one.empty}
    for parameter in parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD or any(not kind.words for kind in kinds_of(parameter.annotation)):
            continue
        with pytest.raises((TypeError, ValueError), match=rf"^{parameter.name}\b"):
            function(**required | {parameter.name: Unreadable()})


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        ("int", np.int8(3), 3),
        ("int | None", None, None),
        ("float", 2, 2),
        ("float", np.float32(0.5), 0.5),
        ("bool", np.bool_(1), True),
        ("str | Unset | None", UNSET, UNSET),
        ("str", np.str_("a"), "a"),
        ("Seed", 2**70, 2**70),
        ("Sequence[str] | None", pd.Index(["a", "b"]), ["a", "b"]),
        ("Sequence[str] | None", np.array(["a", "b"]), ["a", "b"]),
        ("Sequence[str]", (name for name in "ab"), ["a", "b"]),
        ("Sequence[int | str]", ("a", np.int64(1)), ["a", 1]),
        ("Literal['all'] | Iterable[str | float]", pd.Series(["a", "b"]), ["a", "b"]),
        ("Literal['all'] | Iterable[str | float]", "all", "all"),
        ("inputs.Covariates | None", {"a": 1}, {"a": 1}),
        ("inputs.Covariates", {"treated": True, "sex": "f"}, {"treated": True, "sex": "f"}),
        ("Literal['all'] | Iterable[str | float]", np.array([True, False]), [True, False]),
        ("str | float | bool | None", np.bool_(0), False),
    ],
)
def test_values_of_the_annotation_pass(annotation: str, value: Any, expected: Any) -> None:
    got = passed(annotation, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "sentence"),
    [
        ("int", True, "argument must be a whole number, but is True."),
        ("int | None", 1.0, "argument must be a whole number or None, but is 1.0."),
        ("float", "1", "argument must be a number, but is '1'."),
        ("float", 10**400, "argument must be a number, but is 1000"),
        ("float", np.array([0.1]), r"argument must be a number, but is array\(\[0.1\]\)"),
        ("bool", 1, "argument must be True or False, but is 1."),
        ("str", ["a"], r"argument must be text, but is \['a'\]."),
        ("Seed", -1, "argument must be a whole number from 0 on, a numpy.random.Generator or None, but is -1"),
        ("Sequence[str] | None", "a", r"argument must be a list of text or None, but is 'a'. Give a list: \['a'\]."),
        ("Sequence[str]", [1], r"argument must be a list of text, but is \[1\]"),
        ("Sequence[str]", (one for one in [1]), r"argument must be a list of text, but is \[1\]"),
        ("Sequence[int | str]", [1, np.nan], "argument must be a list of whole numbers and text, but is "),
        ("Sequence[str]", {"a": 1}, "argument must be a list of text, but is {'a': 1}"),
        ("inputs.Factors", 2.5, "argument must be a list of whole numbers and text or a dict .* or text, but is 2.5"),
        pytest.param("int", 10**5000, "argument must be a whole number, but is of type int.", id="no-digits"),
        ("Seed", 10**400, "argument must be a whole number from 0 on, a numpy.random.Generator or None, but is 1000"),
        ("str | torch.device", 1, "argument must be text or a torch.device, but is 1."),
        ("inputs.Covariates | None", ["a"], r"argument must be a dict \(numbers to 1e308\) or None, but is "),
        ("inputs.Covariates", {"a": 10**400}, r"argument must be a dict \(numbers to 1e308\), but is {'a': 1000"),
    ],
)
def test_others_are_refused(annotation: str, value: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=f"^{sentence}"):
        passed(annotation, value)


def test_the_function_keeps_its_face() -> None:
    @door
    def doubled(n: int, *, by: int = 2) -> int:
        """Say what."""
        return n * by

    assert doubled(3, by=3) == 9
    assert doubled.__doc__ == "Say what."
    assert list(inspect.signature(doubled).parameters) == ["n", "by"]
    with pytest.raises(TypeError, match="missing a required argument: 'n'"):
        doubled()  # type: ignore[call-arg]


def test_an_annotation_that_nobody_knows_is_noticed_when_the_module_is_loaded() -> None:
    def function(argument: Any) -> Any:
        return argument

    function.__annotations__["argument"] = "frozenset[str]"
    with pytest.raises(KeyError, match="frozenset"):
        door(function)
