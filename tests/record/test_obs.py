"""Columns of obs in all forms that pandas has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from sc_ldvae.record import levels_of, numbers

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = [2, 0, 2, 1]
NUMBERS: dict[str, Callable[[Any], Any]] = {
    "int64": np.asarray,
    "uint8": lambda values: np.asarray(values, "u1"),
    "float16": lambda values: np.asarray(values, "f2"),
    "float32": lambda values: np.asarray(values, "f4"),
    "int32 of another machine": lambda values: np.asarray(values, ">i4"),
    "float64 of another machine": lambda values: np.asarray(values, ">f8"),
    "sparse": lambda values: pd.arrays.SparseArray(values, fill_value=0),
    "sparse float64": lambda values: pd.arrays.SparseArray(np.asarray(values, "f8")),
    "nullable Int64": lambda values: pd.array(values, "Int64"),
    "nullable Float32": lambda values: pd.array(values, "Float32"),
}


def text(values: list[int]) -> list[str]:
    return ["abc"[value] for value in values]


LEVELS: dict[str, Callable[[Any], Any]] = NUMBERS | {
    "objects": lambda values: np.array(text(values), object),
    "text of pandas": lambda values: pd.array(text(values), "string"),
    "categories": lambda values: pd.Categorical(text(values)),
    "categories that don't occur": lambda values: pd.Categorical(text(values), ["a", "aa", "b", "c"]),
    "sparse text": lambda values: pd.arrays.SparseArray(np.array(text(values), object)),
    "bool of a category": lambda values: pd.Categorical(np.asarray(values) > 0),
}


@pytest.mark.parametrize("form", LEVELS)
def test_levels_are_counted_in_their_order(form: str) -> None:
    codes, names = levels_of(pd.Series(LEVELS[form](VALUES)), "key", "batch_key")
    wanted = {"bool of a category": [1, 0, 1, 1]}.get(form, VALUES)
    assert codes.dtype == np.int64
    assert codes.tolist() == wanted
    assert len(names) == max(wanted) + 1
    assert all(isinstance(name, str) for name in names)
    assert names == sorted(names)


def test_cells_without_a_level_are_told() -> None:
    for missing in (pd.Series(["b", None, "a"]), pd.Series([1.0, np.nan, 0.0]), pd.Series([1, None, 0], dtype="Int64")):
        assert levels_of(missing, "key", "keys")[0].tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        pytest.param([["a"], ["b"]], r"^labels_key: obs\['key'\] holds \['a'\], which can't be a level", id="lists"),
        pytest.param([1, "1"], r"^labels_key: obs\['key'\] has different levels that read '1' as text", id="alike"),
    ],
)
def test_what_are_no_levels(values: list[Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        levels_of(pd.Series(values, dtype=object), "key", "labels_key")


@pytest.mark.parametrize("form", NUMBERS)
def test_numbers_of_all_types(form: str) -> None:
    got = numbers(pd.DataFrame({"key": NUMBERS[form](VALUES)}), "key", "keys")
    assert got.dtype == np.float64
    assert got.tolist() == VALUES


@pytest.mark.parametrize(
    ("column", "error"),
    [
        pytest.param([True, False], r"has the type bool, but must hold numbers", id="bool"),
        pytest.param(["1", "2"], r"has the type \w+, but must hold numbers", id="text"),
        pytest.param([1j, 2.0], r"has the type complex128, but must hold numbers", id="complex"),
        pytest.param(pd.Categorical([1, 2]), r"has the type category, but must hold numbers", id="category"),
        pytest.param([1.0, np.nan], r"is missing in 1 cells", id="missing"),
        pytest.param(pd.array([None, 1], "Int64"), r"is missing in 1 cells", id="nullable"),
        pytest.param([-np.inf, np.inf], r"is infinite in 2 cells", id="infinite"),
    ],
)
def test_what_are_no_numbers(column: Any, error: str) -> None:
    with pytest.raises(ValueError, match=rf"^keys: obs\['key'\] {error}"):
        numbers(pd.DataFrame({"key": column}), "key", "keys")
