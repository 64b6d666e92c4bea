"""The door of public functions: what is passed for an argument is what its annotation says, or is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import wraps
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from sc_ldvae._said import of_python, said
from sc_ldvae._typing import Unset

if TYPE_CHECKING:
    from collections.abc import Callable

_Function = TypeVar("_Function", bound="Callable[..., Any]")
_LONGEST_SHOWN = 60


class Kind(NamedTuple):
    """What one alternative of an annotation stands for."""

    words: str
    """How people read it; empty: not said."""
    accepts: Callable[[Any], bool]
    converted: Callable[[Any], Any] = lambda value: value


def door(function: _Function) -> _Function:
    """Let a public function be called with nothing but what its annotations say.

    NumPy's numbers and texts become Python's, in lists and dicts too, and anything that holds several names becomes a
    list: whether it was an array, an index, a set or a generator is no matter inside.

    Examples
    --------
    >>> @door
    ... def doubled(n: int) -> int:
    ...     return 2 * n
    >>> doubled(4)
    8
    >>> doubled("4")
    Traceback (most recent call last):
    ...
    TypeError: n must be a whole number, but is '4'.
    """
    signature = inspect.signature(function)
    kinds = _kinds_by_name(signature)

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            msg = f"{function.__name__}: {error}."
            raise TypeError(msg) from None
        bound.arguments.update(_all_checked(bound.arguments, kinds))
        _check_copy(bound.arguments)
        return function(*bound.args, **bound.kwargs)

    return call  # type: ignore[return-value]


def options_of(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that another public function was given for this one, as its door lets them in."""
    return dict(options) | _all_checked(options, _kinds_by_name(inspect.signature(function)))


def kinds_of(annotation: str) -> list[Kind]:
    """The alternatives of an annotation as it stands in the code."""
    parts = [part.strip() for part in re.findall(r"(?:[^|\[\]]|\[[^\]]*\])+", annotation)]
    return [kind for part in parts for kind in (kinds_of(_UNIONS[part]) if part in _UNIONS else [_KINDS[part]])]


def _kinds_by_name(signature: inspect.Signature) -> dict[str, list[Kind]]:
    return {
        name: kinds_of(str(parameter.annotation))
        for name, parameter in signature.parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }


def _all_checked(arguments: Mapping[str, Any], kinds: Mapping[str, list[Kind]]) -> dict[str, Any]:
    """Those that are annotated."""
    return {name: _checked(name, arguments[name], kinds[name]) for name in kinds.keys() & arguments.keys()}


def _check_copy(arguments: Mapping[str, Any]) -> None:
    """Refuse a copy of an object whose counts are in a file, which would need another file."""
    name, data = next(iter(arguments.items()), ("", None))
    if arguments.get("copy") and getattr(data, "isbacked", False):
        msg = (
            f"copy=True was given, but {name} is backed by a file, whose counts would have to be copied, too. Leave "
            f"it out, or pass {name}.copy('some.h5ad'), or {name}.to_memory()."
        )
        raise ValueError(msg)


def _checked(name: str, value: Any, kinds: list[Kind]) -> Any:
    several = any(kind.words.startswith("a list") for kind in kinds)
    if several and isinstance(value, Iterator):
        # It can be read once only.
        value = list(value)
    for kind in kinds:
        if kind.accepts(value):
            return kind.converted(value)
    try:
        shown = said(value)
    # Whatever a stranger's object, or a number of 5,000 digits, makes of that.
    except Exception:  # noqa: BLE001
        shown = f"of type {type(value).__name__}"
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
    hint = f" Give a list: [{shown}]." if isinstance(value, str) and several else ""
    words = [kind.words for kind in kinds if kind.words]
    msg = f"{name} must be {' or '.join(words)}, but is {shown}.{hint}"
    raise TypeError(msg)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return False
    try:
        float(value)
    except OverflowError:
        # Nothing is computed with such, and Python does not even write the longest down.
        return False
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and _is_number(value)


def _is_level(value: Any) -> bool:
    """Levels are text or numbers, or whether something is so."""
    return isinstance(value, str | bool | np.bool_) or _is_number(value)


def _is_dict(value: Any) -> bool:
    # What its keys and values may be beyond that, the function says itself.
    return isinstance(value, Mapping) and all(_is_level(one) for one in value.values() if isinstance(one, Integral))


def _is_text_by_text(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_text(one) for pair in value.items() for one in pair)


def _dict_of_python(value: Any) -> Any:
    return of_python(dict(value))


def _several(words: str, of: Callable[[Any], bool]) -> Kind:
    def accepts(value: Any) -> bool:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            return False
        try:
            return all(of(one) for one in value)
        except TypeError:
            # Such as an array of no dimension.
            return False

    return Kind(words, accepts, lambda value: of_python(list(value)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_device(value: Any) -> bool:
    # By name: torch is imported where it is needed.
    return f"{type(value).__module__}.{type(value).__qualname__}" == "torch.device"


def _is_seed(value: Any) -> bool:
    return isinstance(value, np.random.Generator) or value is None or (_is_whole(value) and value >= 0)


_TEXT = Kind("text", _is_text, str)
# What the function itself looks at more closely.
_ANYTHING = Kind("", lambda _: True, of_python)
# A few choices: which, the function says itself.
_CHOICES = (
    "By",
    "Dispersion",
    "Enrichment",
    "GeneLikelihood",
    "Kind",
    "LatentDistribution",
    "LoadingsPrior",
    "Literal['all']",
    "Literal['factor', 'clustered']",
    "Literal['own']",
    "Literal['violin', 'matrix']",
    "Method",
    "Mode",
    "Per",
    "Scored",
    "Subsample",
    "assess.Method",
    "inputs.MissingGenes",
    "str",
)
_OPEN = (
    "Any",
    "Ax",
    "Axes",
    "Colormap",
    "Data",
    "Mask",
    "Sequence[bool]",
    "pd.DataFrame",
)
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_CHOICES, _TEXT),
    **dict.fromkeys(_OPEN, _ANYTHING),
    "None": Kind("None", lambda value: value is None),
    "Unset": Kind("", lambda value: isinstance(value, Unset)),
    "Shown": Kind("'all' or 'fitted'", _is_text, str),
    "bool": Kind("True or False", lambda value: isinstance(value, bool | np.bool_), bool),
    "int": Kind("a whole number", _is_whole, int),
    "float": Kind("a number", _is_number, of_python),
    "Path": Kind("a path", lambda value: isinstance(value, PathLike)),
    "PathLike[str]": Kind("a path", lambda value: isinstance(value, PathLike)),
    "Seed": Kind("a whole number from 0 on, a numpy.random.Generator or None", _is_seed, of_python),
    "Sequence[str]": _several("a list of text", _is_text),
    "Sequence[int | str]": _several("a list of whole numbers and text", lambda one: _is_whole(one) or _is_text(one)),
    "Iterable[int]": _several("a list of whole numbers", _is_whole),
    "Iterable[str | float]": _several("a list of text and numbers", _is_level),
    "torch.device": Kind("a torch.device", _is_device),
    "Mapping[str, str]": Kind(
        "a dict of text by text", _is_text_by_text, lambda value: {str(key): str(one) for key, one in value.items()}
    ),
    "inputs.PerModality": Kind("a dict by modality", lambda value: isinstance(value, Mapping), _dict_of_python),
    "inputs.Covariates": Kind("a dict (numbers to 1e308)", _is_dict, _dict_of_python),
}
# Names of several alternatives.
_UNIONS = {
    "inputs.Factors": "Sequence[int | str] | inputs.Covariates | int | str",
    "inputs.Layer": "inputs.PerModality | str | Unset | None",
    "inputs.Modalities": "inputs.PerModality | Sequence[str]",
}
