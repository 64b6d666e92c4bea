"""Names of genes beside their points, without overlaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_ldvae.pl._figure import figure_of
from sc_ldvae.pl._text import as_it_is, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from sc_ldvae._typing import Floats, Positions

SIZE = 7
# Points from one line of names to the next.
ROW = 1.25 * SIZE
# Where a column of names begins at the least: a share of the width, from the side that the points are on.
COLUMN = 0.12
# Points between a point and its name; from the second on there is a line.
_NEAR = 3.0
_DISTANCES = np.array([_NEAR, 8.0, 14.0, 21.0, 30.0, 42.0, 56.0, 72.0])
_N_ANGLES = 16
# What it costs to cover a name or to leave the axes, to cross another line or name with the own line, to cover a point
# that has a name or to pass it closely, or to cover any other point: in points of distance from the own point.
_NAME, _CROSSING, _NAMED_POINT, _POINT = 10_000.0, 100.0, 30.0, 1.5
_N_ROUNDS = 4
# Points on a line that may lie under a name.
_N_ALONG = 8


def stack(axis: Axes, points: Floats, names: Sequence[str], *, below: bool, inner: float) -> None:
    """Put names in a column beside points that fall from left to right.

    Names stand to the right of their points, in the empty corner over a falling curve; with `below`, to the left of
    them, in the corner under it.

    Parameters
    ----------
    points
        Points x 2, in data coordinates, from the outermost to the innermost. Limits and layout must be final.
    inner
        Level, in data coordinates, that all names stay above, or below.
    """
    per_point = figure_of(axis).dpi / 72
    row = ROW * per_point
    frame = axis.get_window_extent()
    pixels = axis.transData.transform(points)
    sign, edge = (-1, frame.y0) if below else (1, frame.y1)
    least = sign * axis.transData.transform((0, inner))[1] + row / 2
    levels = sign * _spread(sign * pixels[:, 1], row, least, sign * edge - row / 2)
    # Clear of the points, if that leaves room for the names, and for labels of ticks that are yet to widen.
    width = 2 * max(_half_size(axis, name)[0] for name in names) * per_point
    inmost = (frame.x1 - pixels[:, 0].min() if below else pixels[:, 0].max() - frame.x0) / frame.width
    share = max(COLUMN, min(inmost + COLUMN / 2, 1 - COLUMN / 4 - width / frame.width, 0.5))
    column = frame.x1 - share * frame.width if below else frame.x0 + share * frame.width
    for name, point, pixel, level in zip(names, points, pixels, levels, strict=True):
        offset = (np.array([column, level]) - pixel) / per_point
        align, side = ("right", (1, 0.5)) if below else ("left", (0, 0.5))
        _annotate(axis, name, point, offset, align=align, side=side, line=True)


def _spread(levels: Floats, row: float, least: float, most: float) -> Floats:
    """Levels, from high to low, moved as little as possible until they are a row apart and within the bounds."""
    from scipy.optimize import isotonic_regression

    steps = row * np.arange(len(levels))
    apart = isotonic_regression(levels + steps, increasing=False).x
    return np.clip(apart, least + steps[-1], most) - steps


def place(axis: Axes, points: Floats, names: Sequence[str], others: Floats) -> None:
    """Put names around their points, where they cover no other name and few points.

    Names choose in turn, several times over, the cheapest of a fixed set of places: equal data give equal pictures.

    Parameters
    ----------
    points, others
        Points with and without names, x 2, in data coordinates. Limits and layout must be final.
    """
    per_point = figure_of(axis).dpi / 72
    frame = axis.get_window_extent().get_points() / per_point
    named, light, origin = (axis.transData.transform(these) / per_point for these in (points, others, np.zeros((1, 2))))
    places = []
    for i, name in enumerate(names):
        boxes, lines = _around(named[i], _half_size(axis, name))
        outside = (boxes[:, :2] < frame[0]).any(1) | (boxes[:, 2:] > frame[1]).any(1)
        rest = np.delete(named, i, axis=0)
        near = _n_inside(boxes, rest, _NEAR) + _n_near(lines, rest)
        # Away from the origin there are fewer points.
        inward = (lines[:, 1] - named[i]) @ (origin[0] - named[i]) > 0
        cost = np.repeat(_DISTANCES, _N_ANGLES) * (1 + inward / 2) + _POINT * _n_inside(boxes, light)
        places.append((boxes, lines, cost + _NAMED_POINT * near + _NAME * outside))
    boxes, lines, costs = (np.array(part) for part in zip(*places, strict=True))
    chosen = _choose(boxes, lines, costs)
    for i, name in enumerate(names):
        box, (start, end) = boxes[i, chosen[i]], lines[i, chosen[i]]
        side = (end - box[:2]) / (box[2:] - box[:2])
        line = np.linalg.norm(end - start) > 2 * _NEAR
        _annotate(axis, name, points[i], (box[:2] + box[2:]) / 2 - start, align="center", side=side, line=bool(line))


def _half_size(axis: Axes, name: str) -> Floats:
    """Half of width and height of the name, in points."""
    text = as_it_is(axis.text(0, 0, shown(name), fontsize=SIZE))
    # A name without ink has a place, too.
    size = np.maximum(text.get_window_extent().size, 1)
    text.remove()
    return size / 2 / (figure_of(axis).dpi / 72)


def _around(point: Floats, half: Floats) -> tuple[Floats, Floats]:
    """Boxes that a name could fill (places x left, bottom, right, top), and the lines that lead there (x 2 x 2)."""
    distances = np.repeat(_DISTANCES, _N_ANGLES)
    angles = np.tile(np.arange(_N_ANGLES), len(_DISTANCES)) * (2 * np.pi / _N_ANGLES)
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    ends = point + directions * distances[:, None]
    # The line ends at the nearest side or corner of the name.
    centers = ends + half * np.clip(1.5 * directions, -1, 1)
    starts = np.broadcast_to(point, ends.shape)
    return np.hstack([centers - half, centers + half]), np.stack([starts, ends], axis=1)


def _choose(boxes: Floats, lines: Floats, costs: Floats) -> Positions:
    """Place of each name, of arrays names x places, that costs least as the others stand."""
    chosen = costs.argmin(1)
    names = np.arange(len(costs))
    for _ in range(_N_ROUNDS):
        before = chosen.copy()
        for i in names:
            rest = np.delete(names, i)
            others = boxes[rest, chosen[rest]], lines[rest, chosen[rest]]
            chosen[i] = (costs[i] + _conflicts(boxes[i], lines[i], *others)).argmin()
        if (chosen == before).all():
            break
    return chosen


def _conflicts(boxes: Floats, lines: Floats, other_boxes: Floats, other_lines: Floats) -> Floats:
    apart = (boxes[:, None, :2] >= other_boxes[:, 2:]) | (other_boxes[:, :2] >= boxes[:, None, 2:])
    covered = (~apart.any(2)).sum(1)
    own = _along(lines)[:, :, None]
    through = ((own > other_boxes[:, :2]) & (own < other_boxes[:, 2:])).all(3).any(1).sum(1)
    under = _n_inside(boxes, _along(other_lines).reshape(-1, 2)) / _N_ALONG
    return _NAME * covered + _CROSSING * (_n_crossing(lines, other_lines) + through + under)


def _along(lines: Floats) -> Floats:
    """Points on each line, without its ends: lines x points x 2."""
    shares = (np.arange(_N_ALONG) + 0.5)[:, None] / _N_ALONG
    return lines[:, :1] * (1 - shares) + lines[:, 1:] * shares


def _n_crossing(lines: Floats, others: Floats) -> Positions:
    (a, b), (c, d) = (lines[:, None, 0], lines[:, None, 1]), (others[:, 0], others[:, 1])
    apart = _turn(a, b, c) * _turn(a, b, d) < 0
    return (apart & (_turn(c, d, a) * _turn(c, d, b) < 0)).sum(1)


def _turn(a: Floats, b: Floats, c: Floats) -> Floats:
    """Positive where c lies to the left of the line from a to b."""
    (x, y), (u, v) = np.moveaxis(b - a, -1, 0), np.moveaxis(c - a, -1, 0)
    return x * v - y * u


def _n_inside(boxes: Floats, points: Floats, margin: float = 0) -> Positions:
    """How many points each box covers."""
    inside = (points > boxes[:, None, :2] - margin) & (points < boxes[:, None, 2:] + margin)
    return inside.all(2).sum(1)


def _n_near(lines: Floats, points: Floats) -> Positions:
    """How many points each line passes closely."""
    starts, steps = lines[:, :1], lines[:, 1:] - lines[:, :1]
    shares = np.clip(((points - starts) * steps).sum(2) / (steps**2).sum(2), 0, 1)
    return (np.linalg.norm(starts + shares[..., None] * steps - points, axis=2) < _NEAR).sum(1)


def _annotate(
    axis: Axes, name: str, point: Floats, offset: Floats, *, align: str, side: Floats | tuple[float, float], line: bool
) -> None:
    """Write the name at an offset in points; a line leads to its side, in shares of its width and height."""
    arrow = {"arrowstyle": "-", "linewidth": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 1, "relpos": tuple(side)}
    text = axis.annotate(
        shown(name),
        tuple(point),
        tuple(offset),
        textcoords="offset points",
        ha=align,
        va="center",
        fontsize=SIZE,
        arrowprops=arrow if line else None,
        # The axes are where they shall stay.
        in_layout=False,
    )
    as_it_is(text)
