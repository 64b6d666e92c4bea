"""Names in pictures: as they are, whatever they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.font_manager import FontProperties
    from matplotlib.text import Text

_MOST_LETTERS = 80
# For what no font has: the first of these that one has.
_STAND_INS = "\N{REPLACEMENT CHARACTER}", "?"


def shown(name: object) -> str:
    """A name on one line, and with its middle left out where it would be wider than a picture."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(name))
    if len(line) <= _MOST_LETTERS:
        return line
    half = _MOST_LETTERS // 2
    return f"{line[: half - 1]}…{line[-half:]}"


def letters(names: Iterable[object]) -> int:
    """Of the longest name, as it is shown."""
    return max((len(shown(name)) for name in names), default=0)


def literal(axes: Iterable[Axes]) -> None:
    """Take titles, labels and legends of these axes as they are: dollar signs in names are no mathematics.

    Not what stands in the axes: it may be the caller's. Who writes a name there calls `as_it_is` for it.
    """
    for axis in axes:
        legend = axis.get_legend()
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label, *(legend.get_texts() if legend else ())):
            as_it_is(text)
        for side in (axis.xaxis, axis.yaxis):
            _literal_ticks(side)


def as_it_is(text: Text) -> Text:
    """Show this text letter by letter."""
    text.set_parse_math(False)
    text.set_usetex(False)
    text.set_text(_drawable(text.get_text(), text.get_fontproperties()))
    return text


def _literal_ticks(side: Axis) -> None:
    """Labels that were given; those that matplotlib makes of numbers are its own mathematics."""
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    if not isinstance(side.get_major_formatter(), FixedFormatter | FuncFormatter):
        return
    ticks = side.get_major_ticks()
    before = [tick.label1.get_text() for tick in ticks]
    after = [as_it_is(tick.label1).get_text() for tick in ticks]
    for tick in ticks:
        as_it_is(tick.label2)
    if after != before:
        # Else the next drawing asks for the names again.
        side.set_ticklabels(after)


def _drawable(text: str, font: FontProperties) -> str:
    """With stand-ins for letters that the font lacks, of which matplotlib would warn."""
    if text.isascii():
        return text
    from matplotlib.font_manager import get_font

    known = [get_font(path) for path in _files(font)]

    def has(letter: str) -> bool:
        return letter == "\n" or any(one.get_char_index(ord(letter)) for one in known)

    stand_in = next(filter(has, _STAND_INS), "")
    return "".join(letter if has(letter) else stand_in for letter in text)


def _files(font: FontProperties) -> Sequence[str]:
    """One for each family that is asked for, as matplotlib itself looks for letters."""
    from matplotlib.font_manager import findfont

    found = []
    for family in font.get_family():
        one = font.copy()
        one.set_family(family)
        try:
            found.append(findfont(one, fallback_to_default=False))
        except ValueError:
            # It is not installed, and matplotlib takes the others.
            continue
    return found or [findfont(font)]
