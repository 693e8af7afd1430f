"""Drawing formats and the ways between them.

Three forms, as in ``README.md``:

========  =====================================================================================
drawing   list of strokes; a stroke is an (N, 2) float array of canvas pixels, y down
stroke3   (N, 3) rows (Δx, Δy, lift); lift is 1 when the pen lifts *after* this point
stroke5   (N, 5) rows (Δx, Δy, p1, p2, p3): p1 the pen stays down, p2 the pen lifts after this
          point, p3 the drawing ends (Ha & Eck, section 3.1)
========  =====================================================================================

The first point of a drawing is the origin and has no row.

**The canonical frame** is Quick, Draw!'s "simplified" convention: the longest side of the bounding box
is 255 units and strokes are simplified by Ramer-Douglas-Peucker with ε = 2 units. Everything the
network sees went through it; :class:`Frame` remembers the way back to the user's canvas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketch_core import kernels

Stroke = NDArray[np.float64]
Drawing = list[Stroke]

FRAME_SIZE = 255.0
# Whole drawings that come from canonical files have longest sides of 250 to 255 (offsets were rounded).
CANONICAL_SIDES = (245.0, 256.0)
EPSILON = 2.0
MAX_STROKES = 400
MAX_POINTS = 20_000
MAX_COORDINATE = 1e6
MIN_SIDE = 1e-6

START_TOKEN = np.array([0.0, 0.0, 1.0, 0.0, 0.0], dtype=np.float32)


class DrawingError(ValueError):
    """A drawing that cannot be used; the message is one sentence for the person who drew it."""


# ---------------------------------------------------------------------------------------------------
# JSON and validation


def drawing_from_json(
    payload: Any, *, max_strokes: int = MAX_STROKES, max_points: int = MAX_POINTS, allow_empty: bool = False
) -> Drawing:
    """Check a JSON drawing and turn it into arrays.

    Args:
        payload: ``[[[x, y], ...], ...]`` or ``{"strokes": ...}``, in canvas pixels. Points may carry more
            numbers (time, pressure), which are not modelled and are dropped here.
        max_strokes, max_points: limits for the whole drawing.
        allow_empty: an empty drawing is an error unless this is set.

    Returns:
        A list of (N, 2) float64 arrays, N ≥ 1. Empty strokes are dropped.

    Raises:
        DrawingError: wrong types, not finite, too large, too many points, or nothing drawn.
    """
    if isinstance(payload, dict):
        payload = payload.get("strokes")
    if not isinstance(payload, list | tuple):
        raise DrawingError('A drawing must be a list of strokes, or an object with a "strokes" list.')
    if len(payload) > max_strokes:
        raise DrawingError(f"The drawing has {len(payload):,} strokes; at most {max_strokes:,} are allowed.")
    total = 0
    drawing: Drawing = []
    for number, stroke in enumerate(payload, start=1):
        if not isinstance(stroke, list | tuple):
            raise DrawingError(f"Stroke {number} must be a list of [x, y] points.")
        total += len(stroke)
        if total > max_points:
            raise DrawingError(f"The drawing has more than {max_points:,} points; please simplify it.")
        points = np.empty((len(stroke), 2), dtype=np.float64)
        for row, point in enumerate(stroke):
            if not isinstance(point, list | tuple) or not 2 <= len(point) <= 4:
                raise DrawingError(f"Each point of stroke {number} must be [x, y] in numbers.")
            for value in point:
                # bool is an int in Python, and JSON's NaN, Infinity and 1e999 arrive as floats.
                if type(value) not in (int, float) or not abs(value) <= MAX_COORDINATE:
                    if value is None and point.index(value) > 1:
                        continue  # an unknown time or pressure
                    raise DrawingError(
                        f"Stroke {number} has a coordinate that is not a finite number "
                        f"between -{MAX_COORDINATE:,.0f} and {MAX_COORDINATE:,.0f}."
                    )
            points[row] = point[0], point[1]
        if len(points):
            drawing.append(points)
    if not drawing and not allow_empty:
        raise DrawingError("There is nothing drawn yet.")
    return drawing


def drawing_to_json(drawing: Iterable[NDArray[Any]], decimals: int = 1) -> list[list[list[float]]]:
    """A drawing as nested lists of numbers rounded to ``decimals`` (canvas pixels)."""
    return [np.round(np.asarray(stroke, dtype=np.float64), decimals).tolist() for stroke in drawing]


def is_stroke3(payload: Any) -> bool:
    """Whether JSON holds stroke-3 rows [Δx, Δy, lift] rather than strokes of points."""
    return (
        isinstance(payload, list)
        and 0 < len(payload) <= MAX_POINTS
        and all(isinstance(row, list) and len(row) == 3 for row in payload)
        and all(type(value) in (int, float) and abs(value) <= MAX_COORDINATE for row in payload for value in row)
        and all(row[2] in (0, 1) for row in payload)
    )


def check_drawing(drawing: Sequence[Any], *, allow_empty: bool = False) -> Drawing:
    """Validate a drawing given as arrays (or nested lists) and return it as float64 arrays.

    Raises:
        DrawingError: a stroke is not (N, 2), not finite, or there is nothing drawn.
    """
    checked: Drawing = []
    if not isinstance(drawing, Sequence) or isinstance(drawing, str | bytes):
        raise DrawingError("A drawing must be a list of (N, 2) arrays of canvas pixels.")
    for number, stroke in enumerate(drawing, start=1):
        try:
            points = np.asarray(stroke, dtype=np.float64)
        except (TypeError, ValueError):
            raise DrawingError(f"Stroke {number} is not an (N, 2) array of numbers.") from None
        if points.size == 0:
            continue
        if points.ndim != 2 or points.shape[1] < 2:
            raise DrawingError(f"Stroke {number} has shape {points.shape}; it must be (N, 2).")
        points = points[:, :2]
        if not np.isfinite(points).all() or np.abs(points).max() > MAX_COORDINATE:
            raise DrawingError(f"Stroke {number} has a coordinate that is not a finite number of ordinary size.")
        checked.append(points)
    if sum(map(len, checked)) > MAX_POINTS or len(checked) > MAX_STROKES:
        raise DrawingError(f"The drawing has more than {MAX_POINTS:,} points or {MAX_STROKES:,} strokes.")
    if not checked and not allow_empty:
        raise DrawingError("There is nothing drawn yet.")
    return checked


# ---------------------------------------------------------------------------------------------------
# Geometry


def bounds(drawing: Sequence[NDArray[Any]]) -> tuple[float, float, float, float]:
    """(x_min, y_min, x_max, y_max) of a drawing that has at least one point."""
    points = np.concatenate([np.asarray(stroke)[:, :2] for stroke in drawing])
    low, high = points.min(axis=0), points.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def longest_side(drawing: Sequence[NDArray[Any]]) -> float:
    """The longer side of a drawing's bounding box."""
    x0, y0, x1, y1 = bounds(drawing)
    return max(x1 - x0, y1 - y0)


def rdp(points: NDArray[Any], epsilon: float) -> NDArray[Any]:
    """Ramer-Douglas-Peucker: drop points that lie within ``epsilon`` of the lines that stay.

    Iterative (no recursion limit); compiled, or vectorised over each span. The first and the last point stay.

    Args:
        points: (N, 2).
        epsilon: in the units of ``points``.

    Returns:
        (K, 2), 1 ≤ K ≤ N, rows of ``points``.
    """
    n = len(points)
    if n <= 2:
        return points
    keep = np.zeros(n, dtype=bool)
    keep[0] = keep[-1] = True
    if kernels.rdp_keep is not None:
        kernels.rdp_keep(np.ascontiguousarray(points, dtype=np.float64), float(epsilon), keep)
        return points[keep]
    spans = [(0, n - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        start, chord = points[first], points[last] - points[first]
        inner = points[first + 1 : last] - start
        squared = float(chord @ chord)
        # To the piece between the two points, not to the endless line: a line drawn on and back again along
        # itself would lose its far end. A closed curve has no chord: distance to the common end.
        along = np.clip(inner @ chord / squared, 0.0, 1.0) if squared > 0.0 else np.zeros(len(inner))
        off = inner - along[:, None] * chord
        distance = np.hypot(off[:, 0], off[:, 1])
        far = int(distance.argmax())
        if distance[far] > epsilon:
            middle = first + 1 + far
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[keep]


@dataclass(frozen=True)
class Frame:
    """How a canvas lies over the canonical frame: ``frame = (canvas - origin) * scale``."""

    scale: float
    origin: tuple[float, float]

    def from_canvas(self, drawing: Sequence[NDArray[Any]]) -> Drawing:
        """Canvas pixels to frame units."""
        return [(np.asarray(stroke, dtype=np.float64) - self.origin) * self.scale for stroke in drawing]

    def to_canvas(self, drawing: Sequence[NDArray[Any]]) -> Drawing:
        """Frame units back to canvas pixels."""
        return [np.asarray(stroke, dtype=np.float64) / self.scale + self.origin for stroke in drawing]


def fit_frame(drawing: Sequence[NDArray[Any]], share: float = 1.0, size: float = FRAME_SIZE) -> Frame:
    """The frame in which this drawing's longest side is ``share`` of ``size``, its corner at the origin.

    ``share`` below 1 says that the drawing is unfinished and will grow. A single dot has no size (nor has
    what is too small to be drawn, whose scale would overflow): it keeps the scale of the canvas.
    """
    x0, y0, x1, y1 = bounds(drawing)
    side = max(x1 - x0, y1 - y0)
    scale = share * size / side if side > MIN_SIDE else 1.0
    return Frame(scale=scale, origin=(x0, y0))


def simplify(drawing: Sequence[NDArray[Any]], epsilon: float = EPSILON) -> Drawing:
    """RDP on each stroke, after dropping repeated points (a hand that rests sends many)."""
    simplified: Drawing = []
    for stroke in drawing:
        points = np.asarray(stroke, dtype=np.float64)
        if len(points) > 2:
            moved = np.ones(len(points), dtype=bool)
            moved[1:] = (points[1:] != points[:-1]).any(axis=1)
            points = points[moved]
        simplified.append(rdp(points, epsilon))
    return simplified


def canonical(
    drawing: Sequence[NDArray[Any]], *, share: float = 1.0, epsilon: float = EPSILON, size: float = FRAME_SIZE
) -> tuple[Drawing, Frame]:
    """A drawing in the canonical frame, and the frame that leads back.

    Raises:
        DrawingError: nothing is drawn.
    """
    if not any(len(stroke) for stroke in drawing):
        raise DrawingError("There is nothing drawn yet.")
    frame = fit_frame(drawing, share, size)
    return simplify(frame.from_canvas(drawing), epsilon), frame


# ---------------------------------------------------------------------------------------------------
# drawing <-> stroke3 <-> stroke5


def to_stroke3(drawing: Sequence[NDArray[Any]], *, pen_down: bool = False) -> NDArray[np.float32]:
    """A drawing as (N, 3) float32 rows (Δx, Δy, lift); its first point is the origin and has no row.

    A drawing that begins with a single dot gets the row (0, 0, 1), since a lift needs a row to stand in.

    Args:
        pen_down: the last stroke is unfinished, so its last row has lift 0.

    Raises:
        DrawingError: nothing is drawn.
    """
    strokes = [np.asarray(stroke, dtype=np.float64)[:, :2] for stroke in drawing if len(stroke)]
    if not strokes:
        raise DrawingError("There is nothing drawn yet.")
    points = np.concatenate(strokes)
    lift = np.zeros(len(points))
    lift[np.cumsum([len(stroke) for stroke in strokes]) - 1] = 1.0
    if pen_down:
        lift[-1] = 0.0
    rows = np.column_stack([np.diff(points, axis=0), lift[1:]])
    if lift[0] == 1.0:
        rows = np.vstack([[0.0, 0.0, 1.0], rows])
    return rows.astype(np.float32)


def from_stroke3(stroke3: NDArray[Any], start: tuple[float, float] = (0.0, 0.0)) -> Drawing:
    """(N, 3) rows back to a drawing whose first point is ``start``. Inverse of :func:`to_stroke3`."""
    rows = np.asarray(stroke3, dtype=np.float64)
    points = np.vstack([[start], np.asarray(start) + np.cumsum(rows[:, :2], axis=0)])
    # Row i leads to point i + 1; the point after a lift starts a stroke.
    cuts = np.flatnonzero(rows[:, 2] > 0.5) + 2
    strokes = [stroke for stroke in np.split(points, cuts) if len(stroke)]
    if len(rows) and len(strokes[0]) == 2 and (rows[0] == (0.0, 0.0, 1.0)).all():
        strokes[0] = strokes[0][:1]  # the dot's row
    return strokes


def to_stroke5(
    stroke3: NDArray[Any], *, scale_factor: float = 1.0, n_max: int | None = None, end: bool = True
) -> NDArray[np.float32]:
    """(N, 3) rows to stroke5, offsets divided by ``scale_factor``.

    Args:
        n_max: pad to this many rows with (0, 0, 0, 0, 1). ``None`` adds one end row only.
        end: whether the drawing ends; an unfinished start has no end row (and cannot be padded).

    Returns:
        (N + 1, 5), (n_max, 5), or (N, 5) when ``end`` is false.

    Raises:
        DrawingError: more than ``n_max`` rows.
    """
    rows = np.asarray(stroke3, dtype=np.float32)
    n = len(rows)
    total = (n + 1 if n_max is None else n_max) if end else n
    if total < n:
        raise DrawingError(f"The drawing has {n} points; this model takes at most {n_max}.")
    stroke5 = np.zeros((total, 5), dtype=np.float32)
    stroke5[:n, :2] = rows[:, :2] / scale_factor
    stroke5[:n, 2] = 1.0 - rows[:, 2]
    stroke5[:n, 3] = rows[:, 2]
    stroke5[n:, 4] = 1.0
    return stroke5


def from_stroke5(stroke5: NDArray[Any], *, scale_factor: float = 1.0) -> NDArray[np.float32]:
    """stroke5 rows up to the first end row back to (N, 3) rows, offsets times ``scale_factor``."""
    rows = np.asarray(stroke5, dtype=np.float32)
    ends = np.flatnonzero(rows[:, 4] > 0.5)
    rows = rows[: ends[0]] if len(ends) else rows
    return np.column_stack([rows[:, :2] * scale_factor, (rows[:, 3] > 0.5)]).astype(np.float32)


def scale_factor(stroke3s: Iterable[NDArray[Any]]) -> float:
    """The standard deviation of every Δx and Δy of a training set, pooled, as in the paper's code."""
    count, total, squares = 0, 0.0, 0.0
    for rows in stroke3s:
        offsets = np.asarray(rows, dtype=np.float64)[:, :2]
        count += offsets.size
        total += float(offsets.sum())
        squares += float((offsets**2).sum())
    if not count:
        raise DrawingError("A scale factor needs at least one drawing.")
    deviation = math.sqrt(max(squares / count - (total / count) ** 2, 0.0))
    return deviation if deviation > 0 else 1.0
