"""What is known of a factor, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sc_ldvae import get
from sc_ldvae.pl._text import shown
from sc_ldvae.pl._wording import associated

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd

    from sc_ldvae._typing import Data
    from sc_ldvae.assess import Method


# Share of a factor's variance (for a number, of its ranks) below which a column does not say what the factor is: nine
# tenths of it are something else, and the closest of many columns may come near a tenth by chance.
_WORTH_NAMING = 0.1


def notes(
    whose: Data,
    names: list[str],
    shares: pd.Series[float] | None,
    keys: Sequence[str] | str | None,
    rotation: Method | None,
    key: str,
) -> list[list[str]]:
    """Lines of text for each factor, out of what the object of the fit knows of it.

    Parameters
    ----------
    whose
        The AnnData, or the MuData of a joint fit.
    names
        Names of the factors.
    shares
        What they explain of the deviance, if it is to be said.
    keys
        Columns of obs to choose the closest from; all that were associated if None.
    rotation
        That of the factors; of rotated ones little is known.
    key
        The `key_added` of the fit.
    """
    measures = _measures(whose, names, shares, rotation, key)
    followed = _followed(whose, names, keys, rotation, key)
    return [[line for line in (", ".join(measures[name]), followed.get(name)) if line] for name in names]


def _measures(
    whose: Data, names: list[str], shares: pd.Series[float] | None, rotation: Method | None, key: str
) -> dict[str, list[str]]:
    measures = {name: [] if shares is None else [f"{100 * shares[name]:z.1f} % of deviance"] for name in names}
    if f"{key}_stability" in whose.uns:
        frame = get.stability(whose, key=key)
        if frame.attrs["rotation"] == (rotation or ""):
            for name, score in frame["score"][names].items():
                measures[str(name)].append(f"stability {score:.2f}")
    return measures


def _followed(
    whose: Data, names: list[str], keys: Sequence[str] | str | None, rotation: Method | None, key: str
) -> dict[str, str]:
    """What each factor goes with, if that was asked, and if it is close enough to be named."""
    if rotation is not None and keys is not None:
        msg = (
            f"keys={keys!r}: associations are of factors without rotation={rotation!r}. Leave one of them out, or "
            "keep the rotation with sc_ldvae.tl.rotate and call sc_ldvae.tl.associate for it."
        )
        raise ValueError(msg)
    if rotation is not None or (keys is None and f"{key}_associations" not in whose.uns):
        return {}
    frame = get.associations(whose, names, key=key).reset_index()
    if keys is not None:
        frame = frame[frame["key"].isin(associated(frame["key"], keys))]
    # The first is the strongest.
    frame = frame[frame["strength"] ** 2 >= _WORTH_NAMING]
    rows = frame.drop_duplicates("factor").set_index("factor").to_dict("index")
    return {str(name): _sentence(row) for name, row in rows.items()}


def _sentence(row: Mapping[Hashable, Any]) -> str:
    key, highest, lowest = (shown(row[name]) for name in ("key", "highest", "lowest"))
    if row["kind"] == "continuous":
        return f"{key} (rho {row['statistic']:.2f})"
    return f"{key} (η² {row['statistic']:.2f}): high in {highest}, low in {lowest}"
