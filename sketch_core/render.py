"""Drawings to pictures: SVG, PNG, animated GIF and contact sheets.

A drawing is a list of (N, 2) arrays of canvas pixels, y down. Lines become smooth curves through their
points; sharp corners stay corners. Sizes of pictures are in pixels.
"""

from __future__ import annotations

import functools
import html
import io
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from sketch_core import strokes

Item = Sequence[Any] | tuple[Sequence[Any], Sequence[Any]] | None
View = tuple[float, float, float, float]

INK, ACCENT_INK, LABEL_INK, PAPER = "#1f2430", "#e4572e", "#4a5162", "#ffffff"
CORNER_DEGREES = 60.0
# Above this a turn is a corner however short the lines are.
SHARPEST_CURVE_DEGREES = 120.0
# What simplification may have cut off, as a share of the drawing's longer side.
TOLERANCE = strokes.EPSILON / strokes.FRAME_SIZE
MAX_SIZE = 8192
MAX_FRAMES = 600
LABEL_LENGTH = 60
_COLOUR = re.compile(r"#(?:[0-9a-fA-F]{3}|[0-9a-fA-F]{6})|[a-zA-Z]{3,24}")
# What XML 1.0 does not allow even when escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class RenderError(ValueError):
    """A picture that cannot be made; the message is one sentence."""


class CairoMissing(RenderError):
    """No PNG can be made here, though SVG and GIF can: the cairo library is missing."""


# ---------------------------------------------------------------------------------------------------
# Curves


def smooth(points: NDArray[Any], *, corner: float = CORNER_DEGREES, tolerance: float = 0.0) -> NDArray[np.float64]:
    """Cubic Bézier segments of a smooth curve through ``points``: a Catmull-Rom spline with corners.

    The tangent at a point weighs the two lines that meet there by the inverse of their lengths (chordal
    Catmull-Rom), and handles are a third of their own line, so uneven points give no loops or overshoots.

    Args:
        points: (N, 2). Repeated points are dropped; a curve whose two ends coincide is closed smoothly.
        corner: the turn in degrees above which a point is a corner.
        tolerance: how far the lines may lie from the hand's curve, in the units of ``points``. A simplified
            small circle turns by more than ``corner`` at every point: turns which a curve so close to the
            lines explains are not corners. 0 for points known exactly.

    Returns:
        (K, 4, 2): start, two handles, end; K = N - 1 without repeated points, 0 for a single dot.
    """
    points = np.asarray(points, dtype=np.float64)[:, :2]
    if len(points) > 1:
        points = points[np.concatenate([[True], (points[1:] != points[:-1]).any(axis=1)])]
    if len(points) < 2:
        return np.zeros((0, 4, 2))
    chords = np.diff(points, axis=0)  # (K, 2)
    lengths = np.hypot(chords[:, 0], chords[:, 1])
    # A chord so short that its length underflows has no direction.
    units = chords / np.maximum(lengths, np.finfo(float).tiny)[:, None]
    closed = len(points) > 3 and bool((points[0] == points[-1]).all())

    before, after = np.arange(-1, len(chords)), np.arange(0, len(chords) + 1)
    before[0], after[-1] = (len(chords) - 1, 0) if closed else (0, len(chords) - 1)
    l1, l2, u1, u2 = lengths[before], lengths[after], units[before], units[after]  # each (N, ...)
    tangents = l2[:, None] * u1 + l1[:, None] * u2
    size = np.hypot(tangents[:, 0], tangents[:, 1])
    turn = np.abs(np.arctan2(u1[:, 0] * u2[:, 1] - u1[:, 1] * u2[:, 0], (u1 * u2).sum(axis=1)))
    limit = np.full(len(points), math.radians(corner))
    if tolerance > 0:
        # An arc whose height over its chord is the tolerance turns by 4 atan(2 h / chord).
        explained = 2.0 * (np.arctan2(2.0 * tolerance, l1) + np.arctan2(2.0 * tolerance, l2))
        limit = np.maximum(limit, np.minimum(explained, math.radians(SHARPEST_CURVE_DEGREES)))
    is_corner = (turn > limit) | (size <= 1e-12 * (l1 + l2))
    if not closed:
        is_corner[[0, -1]] = True
    tangents /= np.where(size > 0, size, 1.0)[:, None]

    start, end = points[:-1], points[1:]
    third = lengths[:, None] / 3.0
    first, second = start + third * tangents[:-1], end - third * tangents[1:]
    free_start, free_end = is_corner[:-1, None], is_corner[1:, None]
    # At a free end nothing bends the curve (natural spline); between two free ends it is a straight line.
    straight = free_start & free_end
    handle1 = np.where(free_start, np.where(straight, start + chords / 3.0, (start + second) / 2.0), first)
    handle2 = np.where(free_end, np.where(straight, end - chords / 3.0, (end + first) / 2.0), second)
    return np.stack([start, handle1, handle2, end], axis=1)


def flatten(segments: NDArray[np.float64], step: float = 2.0) -> NDArray[np.float64]:
    """Points along Bézier segments, about ``step`` apart.

    Args:
        segments: (K, 4, 2), K ≥ 1, as :func:`smooth` returns them.

    Returns:
        (P, 2), the first point of the first segment first.
    """
    pieces = [segments[:1, 0]]
    for segment in segments:
        length = float(np.hypot(*np.diff(segment, axis=0).T).sum())
        n = min(max(1, math.ceil(length / step)), 64)
        t = np.arange(1, n + 1)[:, None] / n
        pieces.append(
            (1 - t) ** 3 * segment[0]
            + 3 * (1 - t) ** 2 * t * segment[1]
            + 3 * (1 - t) * t**2 * segment[2]
            + t**3 * segment[3]
        )
    return np.concatenate(pieces)


# ---------------------------------------------------------------------------------------------------
# Fitting and checking


def _check_size(size: int, what: str = "size") -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size <= MAX_SIZE:
        raise RenderError(f"The {what} of a picture must be a whole number of pixels from 1 to {MAX_SIZE}.")
    return int(size)


def _check_number(value: float, low: float, high: float, what: str) -> float:
    if not isinstance(value, int | float | np.number) or not low <= value <= high:
        raise RenderError(f"The {what} of a picture must be a number from {low:g} to {high:g}.")
    return float(value)


def _colour(colour: str) -> str:
    if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
        raise RenderError("A colour must be #rgb, #rrggbb or a name.")
    return colour


def _text(text: object) -> str:
    """Words from outside, cut and escaped, without what XML forbids."""
    words = _NOT_XML.sub("", str(text))
    words = words if len(words) <= LABEL_LENGTH else words[: LABEL_LENGTH - 1] + "…"
    return html.escape(words)


class _Placement:
    """How a drawing lies in a picture: ``pixels = (canvas - origin) * scale + offset``."""

    def __init__(self, drawing: strokes.Drawing, size: int, margin: float, width: float, view: View | None) -> None:
        self.width, self.height = size, size
        self.offset: NDArray[np.float64] = np.zeros(2)
        if view is not None:
            try:
                x0, y0, x1, y1 = (float(value) for value in view)
            except (TypeError, ValueError):
                raise RenderError("A view must be four numbers: x0, y0, x1, y1.") from None
            if not all(map(math.isfinite, (x0, y0, x1, y1))) or x1 <= x0 or y1 <= y0:
                raise RenderError("A view must be x0, y0, x1, y1 with x0 below x1 and y0 below y1.")
            self.scale = size / max(x1 - x0, y1 - y0)
            self.width = max(1, round((x1 - x0) * self.scale))
            self.height = max(1, round((y1 - y0) * self.scale))
            self.origin = np.array([x0, y0])
            return
        x0, y0, x1, y1 = strokes.bounds(drawing) if drawing else (0.0, 0.0, 0.0, 0.0)
        room = max(size * (1.0 - 2.0 * margin) - width, 1.0)  # lines are not cut at the edge
        side = max(x1 - x0, y1 - y0)
        # A dot, or less than one: in the middle, at its own size.
        self.scale = room / side if side > 1e-6 else 1.0
        self.origin = np.array([(x0 + x1) / 2.0, (y0 + y1) / 2.0])
        self.offset = np.array([size / 2.0, size / 2.0])

    def __call__(self, drawing: strokes.Drawing) -> strokes.Drawing:
        return [(stroke - self.origin) * self.scale + self.offset for stroke in drawing]


def _checked(drawing: Sequence[Any] | None) -> strokes.Drawing:
    return [] if drawing is None else strokes.check_drawing(drawing, allow_empty=True)


def _line_width(width: float | None, size: int) -> float:
    return max(1.0, 0.0125 * size) if width is None else _check_number(width, 0.05, 1000.0, "line width")


def _curves(drawing: strokes.Drawing) -> list[NDArray[np.float64]]:
    """Bézier segments of each stroke; (0, 4, 2) for dots."""
    if not drawing:
        return []
    tolerance = TOLERANCE * strokes.longest_side(drawing)
    return [smooth(stroke, tolerance=tolerance) for stroke in drawing]


# ---------------------------------------------------------------------------------------------------
# SVG


def _number(value: float, decimals: int = 1) -> str:
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _group(drawing: strokes.Drawing, colour: str, width: float, decimals: int) -> str:
    """A drawing already in picture pixels, as SVG elements."""
    number = functools.partial(_number, decimals=decimals)
    path, dots = [], []
    for stroke, segments in zip(drawing, _curves(drawing), strict=True):
        if not len(segments):
            x, y = stroke[0]
            dots.append(
                f'<circle cx="{number(x)}" cy="{number(y)}" r="{_number(0.7 * width, 2)}" '
                f'fill="{colour}" stroke="none"/>'
            )
            continue
        path.append("M" + " ".join(map(number, segments[0, 0])))
        for _, handle1, handle2, end in segments:
            path.append("C" + " ".join(map(number, (*handle1, *handle2, *end))))
    parts = [f'<path d="{"".join(path)}" stroke="{colour}"/>'] if path else []
    return "".join(parts + dots)


def _lines(width: float) -> str:
    return f'<g fill="none" stroke-width="{_number(width, 2)}" stroke-linecap="round" stroke-linejoin="round">'


def _decimals(size: int) -> int:
    return 1 if size >= 200 else 2


def svg(
    drawing: Sequence[Any],
    *,
    size: int = 256,
    margin: float = 0.06,
    color: str = INK,
    width: float | None = None,
    background: str | None = None,
    accent: Sequence[Any] | None = None,
    accent_color: str = ACCENT_INK,
    view: View | None = None,
    title: str | None = None,
) -> str:
    """A drawing as an SVG picture.

    Args:
        size: pixels, the longer side.
        margin: empty border as a share of ``size`` (without ``view``).
        width: of the lines in pixels; 1/80 of ``size`` by default.
        background: a colour; ``None`` leaves it transparent.
        accent: a second drawing in ``accent_color``, in the same canvas: the network's strokes.
        view: (x0, y0, x1, y1) of the canvas that is shown, with its own proportions. By default the
            bounding box of both drawings, in the middle of a square.
        title: words for screen readers.

    Raises:
        RenderError: a size, width, colour or view that cannot be.
        DrawingError: not a drawing.
    """
    size = _check_size(size)
    margin = _check_number(margin, 0.0, 0.45, "margin")
    line = _line_width(width, size)
    first, second = _checked(drawing), _checked(accent)
    place = _Placement([*first, *second], size, margin, line, view)
    decimals = _decimals(size)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{place.width}" height="{place.height}" '
        f'viewBox="0 0 {place.width} {place.height}" role="img">'
    ]
    if title:
        parts.append(f"<title>{_text(title)}</title>")
    if background is not None:
        parts.append(f'<rect width="100%" height="100%" fill="{_colour(background)}"/>')
    parts.append(_lines(line))
    parts.append(_group(place(first), _colour(color), line, decimals))
    parts.append(_group(place(second), _colour(accent_color), line, decimals))
    parts.append("</g></svg>")
    return "".join(parts)


class SvgOptions(TypedDict, total=False):
    """The options of :func:`svg`."""

    size: int
    margin: float
    color: str
    width: float | None
    background: str | None
    accent: Sequence[Any] | None
    accent_color: str
    view: View | None
    title: str | None


# ---------------------------------------------------------------------------------------------------
# Contact sheets


def _text_width(text: str, font_size: float) -> float:
    """A generous guess: fonts differ between machines."""
    return font_size * sum(1.05 if unicodedata.east_asian_width(letter) in "WF" else 0.6 for letter in text)


def _cut(text: object) -> str:
    return html.unescape(_text(text))


def sheet(
    rows: Sequence[Sequence[Item]],
    *,
    labels: Sequence[object] | None = None,
    heads: Sequence[object] | None = None,
    size: int = 128,
    gap: int = 8,
    margin: float = 0.06,
    color: str = INK,
    accent_color: str = ACCENT_INK,
    width: float | None = None,
    background: str | None = PAPER,
    frame: str | None = "#e3e6ec",
) -> str:
    """A contact sheet of drawings as one SVG picture.

    Args:
        rows: rows of drawings. An item may also be a tuple (drawing, accent), such as a start and its
            ending, fitted together; or ``None`` for an empty place. Rows may differ in length.
        labels: words before each row. heads: words above each column.
        size: pixels of each place. gap: pixels between places and around the sheet.
        frame: colour of a thin box around each place, or ``None``.

    Raises:
        RenderError: nothing to show, labels that do not fit the rows, or a sheet that is too large.
        DrawingError: an item is not a drawing.
    """
    size = _check_size(size)
    gap = int(_check_number(gap, 0, 1000, "gap"))
    margin = _check_number(margin, 0.0, 0.45, "margin")
    line = _line_width(width, size)
    color, accent_color = _colour(color), _colour(accent_color)
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise RenderError("A contact sheet needs at least one drawing.")
    if labels is not None and len(labels) != len(rows):
        raise RenderError(f"A contact sheet of {len(rows)} rows has {len(labels)} labels.")
    if heads is not None and len(heads) != columns:
        raise RenderError(f"A contact sheet of {columns} columns has {len(heads)} heads.")

    font = min(max(9.0, 0.11 * size), 20.0)
    left = gap + (max(_text_width(_cut(label), font) for label in labels) + gap if labels is not None else 0)
    top = gap + (1.4 * font if heads is not None else 0)
    total_width = math.ceil(left + columns * (size + gap))
    total_height = math.ceil(top + len(rows) * (size + gap))
    if max(total_width, total_height) > 4 * MAX_SIZE:
        raise RenderError("This contact sheet is too large; show fewer drawings or make them smaller.")

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_width}" height="{total_height}" '
        f'viewBox="0 0 {total_width} {total_height}" role="img">'
    ]
    if background is not None:
        parts.append(f'<rect width="100%" height="100%" fill="{_colour(background)}"/>')
    words = f'font-family="Helvetica, Arial, Noto Sans CJK SC, sans-serif" font-size="{_number(font)}"'
    parts.append(f'<g {words} fill="{LABEL_INK}">')
    for row, label in enumerate(labels or ()):
        y = top + row * (size + gap) + size / 2 + 0.35 * font
        x = left - gap
        parts.append(f'<text x="{_number(x)}" y="{_number(y)}" text-anchor="end">{_text(label)}</text>')
    for column, head in enumerate(heads or ()):
        x = left + column * (size + gap) + size / 2
        parts.append(f'<text x="{_number(x)}" y="{_number(gap + font)}" text-anchor="middle">{_text(head)}</text>')
    parts.append("</g>")

    decimals = _decimals(size)
    parts.append(_lines(line))
    for row, items in enumerate(rows):
        for column, item in enumerate(items):
            x, y = left + column * (size + gap), top + row * (size + gap)
            parts.append(f'<g transform="translate({_number(x)} {_number(y)})">')
            if frame is not None:
                box = f'width="{size - 1}" height="{size - 1}" rx="{_number(0.04 * size)}"'
                parts.append(f'<rect x="0.5" y="0.5" {box} stroke="{_colour(frame)}" stroke-width="1"/>')
            given, added = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            first, second = _checked(given), _checked(added)
            place = _Placement([*first, *second], size, margin, line, None)
            parts.append(_group(place(first), color, line, decimals))
            parts.append(_group(place(second), accent_color, line, decimals) + "</g>")
    parts.append("</g></svg>")
    return "".join(parts)


class SheetOptions(TypedDict, total=False):
    """The options of :func:`sheet`."""

    labels: Sequence[object] | None
    heads: Sequence[object] | None
    size: int
    gap: int
    margin: float
    color: str
    accent_color: str
    width: float | None
    background: str | None
    frame: str | None


# ---------------------------------------------------------------------------------------------------
# PNG


def _rasterise(picture: str) -> bytes:
    try:
        import cairosvg  # noqa: PLC0415 (it needs the cairo library, which may be missing)
    except (ImportError, OSError):
        raise CairoMissing(
            "PNG pictures need the cairo library (on Debian and Ubuntu: apt-get install libcairo2)."
        ) from None
    return bytes(cairosvg.svg2png(bytestring=picture.encode()))


def png(drawing: Sequence[Any], **options: Unpack[SvgOptions]) -> bytes:
    """A drawing as a PNG picture, on white unless ``background`` says otherwise; options as for :func:`svg`.

    Raises:
        RenderError: as :func:`svg`; :class:`CairoMissing` where that library is missing.
    """
    options.setdefault("background", PAPER)
    return _rasterise(svg(drawing, **options))


def sheet_png(rows: Sequence[Sequence[Item]], **options: Unpack[SheetOptions]) -> bytes:
    """A contact sheet as a PNG picture; options as for :func:`sheet`.

    Raises:
        RenderError: as :func:`sheet`; :class:`CairoMissing` where that library is missing.
    """
    return _rasterise(sheet(rows, **options))


# ---------------------------------------------------------------------------------------------------
# GIF


def _rgb(colour: str) -> tuple[int, int, int]:
    try:
        red, green, blue = ImageColor.getrgb(_colour(colour))[:3]
    except ValueError:
        raise RenderError(f"There is no colour named {colour[:30]!r}.") from None
    return red, green, blue


class _Film:
    """Frames of a GIF: one mask for each of two inks, whose shades share the palette.

    Pillow's own reduction to a palette is off by a few steps, which tints the paper.
    """

    SHADES = 128  # of each ink; the first is the paper

    def __init__(self, width: int, height: int, paper: str, inks: tuple[str, str]) -> None:
        # Pillow draws without smoothing, so draw larger and shrink.
        self.over = 3 if max(width, height) <= 512 else 2
        self.size = (width, height)
        big = (width * self.over, height * self.over)
        self.masks = [Image.new("L", big, 0) for _ in inks]
        self.brushes = [ImageDraw.Draw(mask) for mask in self.masks]
        self.small = [np.zeros((height, width), dtype=np.uint8) for _ in inks]
        self.changed: list[tuple[float, float, float, float] | None] = [None for _ in inks]
        shades = np.concatenate([np.linspace(_rgb(paper), _rgb(ink), self.SHADES) for ink in inks])
        self.palette = np.round(shades).astype(np.uint8).tobytes()
        self.frames: list[Image.Image] = []

    def draw(self, path: NDArray[np.float64], ink: int, width: float) -> None:
        """Lines through ``path`` (P, 2), or a dot where P is 1; all in pixels."""
        brush, path = self.brushes[ink], path * self.over
        radius = 0.5 * width * self.over * (1.4 if len(path) == 1 else 1.0)
        for x, y in path.tolist():  # the joints between lines are as round as their ends
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if len(path) > 1:
            brush.line([(x, y) for x, y in path.tolist()], fill=255, width=max(1, round(2 * radius)))
        (x0, y0), (x1, y1) = path.min(axis=0) - radius, path.max(axis=0) + radius
        before = self.changed[ink] or (x0, y0, x1, y1)
        self.changed[ink] = min(before[0], x0), min(before[1], y0), max(before[2], x1), max(before[3], y1)

    def show(self) -> None:
        """Take a frame."""
        for ink, mask in enumerate(self.masks):
            changed = self.changed[ink]
            if changed is None:
                continue
            # Only what was drawn since, in whole pixels of the frame and with one around it.
            x0, y0 = (max(0, math.floor(value / self.over) - 1) for value in changed[:2])
            x1, y1 = (
                min(whole, math.ceil(value / self.over) + 2)
                for value, whole in zip(changed[2:], self.size, strict=True)
            )
            if x0 < x1 and y0 < y1:
                box = (x0 * self.over, y0 * self.over, x1 * self.over, y1 * self.over)
                part = mask.crop(box).resize((x1 - x0, y1 - y0), Image.Resampling.BOX)
                share = np.asarray(part, dtype=np.float64) / 255.0
                self.small[ink][y0:y1, x0:x1] = np.round(share * (self.SHADES - 1)).astype(np.uint8)
            self.changed[ink] = None
        first, second = self.small
        # Where both meet, the denser one is seen: else paler edges of the second would cut through the first.
        frame = Image.fromarray(np.where((second > 0) & (second >= first), second + np.uint8(self.SHADES), first))
        frame.putpalette(self.palette)
        self.frames.append(frame)


def gif(
    drawing: Sequence[Any],
    *,
    size: int = 256,
    seconds: float = 3.0,
    hold: float = 1.5,
    frames_per_second: int = 20,
    margin: float = 0.06,
    color: str = INK,
    width: float | None = None,
    background: str = PAPER,
    accent: Sequence[Any] | None = None,
    accent_color: str = ACCENT_INK,
    accent_width: float | None = None,
    accents: Sequence[bool] | None = None,
    view: View | None = None,
    given_at_once: bool = False,
) -> bytes:
    """An animated GIF of a drawing as it is drawn, at a constant speed of the pen, repeated for ever.

    Args:
        seconds: time of drawing. hold: seconds that the finished drawing stays.
        accent: drawn after ``drawing``, in ``accent_color``, with lines of ``accent_width`` (as ``width`` by default).
        accents: which strokes of ``drawing`` itself are of that colour and width, where two hands took turns.
        given_at_once: ``drawing`` is there from the start, and only ``accent`` is drawn.
        size, margin, color, width, background, view: as for :func:`svg`.

    Raises:
        RenderError: a value that cannot be, or more than 600 frames.
        DrawingError: not a drawing.
    """
    size = _check_size(size)
    if size > 1024:
        raise RenderError("An animation may be at most 1024 pixels wide.")
    margin = _check_number(margin, 0.0, 0.45, "margin")
    seconds = _check_number(seconds, 0.1, 60.0, "time")
    hold = _check_number(hold, 0.0, 60.0, "last frame's time")
    rate = _check_number(frames_per_second, 1, 50, "frame rate")
    line = _line_width(width, size)
    thinner = line if accent_width is None else _line_width(accent_width, size)
    first, second = _checked(drawing), _checked(accent)
    inks = [0] * len(first) if accents is None else [int(bool(accented)) for accented in accents]
    if len(inks) != len(first):
        raise RenderError(f"A drawing of {len(first)} strokes has {len(inks)} marks of whose they are.")
    place = _Placement([*first, *second], size, margin, line, view)

    film = _Film(place.width, place.height, background, (color, accent_color))
    widths = (line, thinner)
    pieces: list[tuple[NDArray[np.float64], int]] = []
    for part, part_inks, at_once in ((place(first), inks, given_at_once), (place(second), [1] * len(second), False)):
        for stroke, segments, ink in zip(part, _curves(part), part_inks, strict=True):
            path = flatten(segments) if len(segments) else stroke[:1]
            if at_once:
                film.draw(path, ink, widths[ink])
            else:
                pieces.append((path, ink))

    # A dot takes as long as a line of its own width.
    steps = [np.hypot(*np.diff(path, axis=0).T) if len(path) > 1 else np.full(1, line) for path, _ in pieces]
    total = float(sum(step.sum() for step in steps))
    count = max(1, round(seconds * rate)) if pieces else 1
    if count > MAX_FRAMES:
        raise RenderError(f"An animation may have at most {MAX_FRAMES} frames; make it shorter or slower.")
    done, number, at = 0.0, 0, 0
    for frame in range(1, count + 1):
        goal = total * frame / count if frame < count else math.inf
        while number < len(pieces):
            path, ink = pieces[number]
            reached = done + np.cumsum(steps[number][at:])
            n = int(np.searchsorted(reached, goal, side="right"))
            if n:
                done = float(reached[n - 1])
                film.draw(path[at : at + n + 1], ink, widths[ink])
                at += n
            if at < len(steps[number]):
                break
            number, at = number + 1, 0
        film.show()

    frames = film.frames
    durations = [max(20, 10 * round(100.0 / rate))] * len(frames)
    durations[-1] += 10 * round(100.0 * hold)
    stream = io.BytesIO()
    frames[0].save(
        stream, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False, disposal=1
    )
    return stream.getvalue()
