"""Sentences that speak of arguments of Python, in terms of options."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

# A name alone is meant as an argument where it is no word of English, or where the sentence says what to pass.
_NO_WORD = re.compile(r".*_.*|lr|rng")
_VALUE = r"""'[^']*'|"[^"]*"|\{[^}]*\}|\[[^\]]*\]|[^\s,;:()'"]*[^\s,;:()'".]"""
# What no rule turns into an option.
_PHRASES = {"adata.raw holds counts: pass adata.raw.to_adata().": "raw holds counts: add --raw."}


def in_options(sentence: str, asked: dict[str, Any]) -> str:
    """The sentence for those who type ``--layer counts`` where Python says ``layer='counts'``.

    Parameters
    ----------
    sentence
        As the functions of the package say it.
    asked
        The options by name of their argument.
    """
    if asked.get("modality") is None and asked.get("modalities") is None:
        # raw is read from AnnData alone.
        for phrase, own in _PHRASES.items():
            sentence = sentence.replace(phrase, own)
    names = set(asked) - {"command", "counts"}
    return _arguments(names).sub(_option, sentence) if names else sentence


def _arguments(names: Iterable[str]) -> re.Pattern[str]:
    """Arguments, with their values or alone; neither in quotes nor in paths."""
    longest_first = sorted(names, key=len, reverse=True)
    alone = "|".join(name for name in longest_first if _NO_WORD.fullmatch(name))
    end = r"(?![\w/'\"-]|\.\w)"
    return re.compile(
        rf"(?<![\w/.'\"-])(?:(?P<given>{'|'.join(longest_first)})=(?P<value>{_VALUE})?"
        rf"|(?P<alone>{alone}){end}"
        rf"|(?<=[Pp]ass )(?P<passed>{'|'.join(longest_first)}){end})"
    )


def _option(found: re.Match[str]) -> str:
    name = found["given"] or found["alone"] or found["passed"]
    option = f"--{name.replace('_', '-')}"
    if found["value"] is None:
        return option
    value = _read(found["value"])
    if isinstance(value, bool):
        return option if value else f"--no-{option.removeprefix('--')}"
    return f"{option} {_typed(value)}"


def _read(text: str) -> Any:  # noqa: ANN401  whatever a sentence names
    """What it stands for, if it is more than a number or a name, which stay as they are written."""
    if text not in {"None", "True", "False"} and text[0] not in "'\"{[":
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _typed(value: Any) -> str:  # noqa: ANN401  whatever a sentence names
    if isinstance(value, dict):
        return " ".join(f"{name}={_typed(one)}" for name, one in value.items())
    if isinstance(value, list):
        return " ".join(map(_typed, value))
    if value is None:
        return "none"
    return repr(value) if isinstance(value, str) and re.search(r"\s|^$", value) else str(value)
