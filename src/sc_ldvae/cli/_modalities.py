"""Modalities and their likelihoods, as they are typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def likelihoods_of(texts: Sequence[str] | None) -> dict[str, str] | list[str] | None:
    """Names with likelihoods (``rna=nb``), or names alone, for whose likelihood another option stands.

    Raises
    ------
    ValueError
        If some have a likelihood and others none, or if one is named twice.
    """
    if texts is None:
        return None
    pairs = [text.rpartition("=") if "=" in text else (text, "", "") for text in texts]
    names = [name for name, _, _ in pairs]
    repeated = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if repeated is not None:
        msg = f"--modalities names {repeated!r} twice. Name each modality once."
        raise ValueError(msg)
    without = [name for name, is_given, _ in pairs if not is_given]
    if without and len(without) < len(pairs):
        msg = (
            f"--modalities gives {without[0]!r} no likelihood, but others one. Write {without[0]}=nb, or names alone. "
            "If it is the file of the counts, name it before the options."
        )
        raise ValueError(msg)
    return names if without else {name: likelihood for name, _, likelihood in pairs}
