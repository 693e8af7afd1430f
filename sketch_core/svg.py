"""SVG pictures from elsewhere to drawings: from Inkscape, Illustrator, icon sets, or written by hand.

Every outline becomes a stroke: ``path``, ``polyline``, ``polygon``, ``line``, ``rect``, ``circle`` and ``ellipse``,
with the transforms of all groups around them, nested ``svg`` with their ``viewBox``, and ``use`` of what stands in the
same file. Curves are flattened and simplified. Words, pictures, style sheets, scripts and references to other
files are passed over: nothing of a file is ever run or fetched.

A file from a stranger costs bounded time and memory: its length, depth, number of elements and number of points are
limited, and one that declares entities is refused before any is expanded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser, ParseError
from numpy.typing import NDArray
from svg.path import Arc, Close, CubicBezier, Line, Move, QuadraticBezier, parse_path

from sketch_core import strokes
from sketch_core.strokes import Drawing

Points = NDArray[np.float64]
Curve = NDArray[np.float64]
"""(K, 4, 2) cubic Bézier segments, each beginning where the one before ends."""
Matrix = NDArray[np.float64]
"""(2, 3): columns a, b, c of SVG's ``matrix(a b c d e f)``."""

MAX_CHARACTERS = 2_000_000
MAX_DRAWN_CHARACTERS = 1_000_000
"""Of the attributes of all elements that are drawn, each time they are: ``use`` draws one many times."""
MAX_ELEMENTS = 20_000
MAX_DEPTH = 200
MAX_SEGMENTS = 20_000
"""Lines and curves."""
MAX_FLAT = 50_000
"""Points of all flattened curves, before simplification."""
MAX_POINTS = 2_000
"""Of the drawing, after simplification; as many as the page takes."""
SMOOTHNESS = 0.0005
"""How far lines may lie from the curves they stand for, as a share of the drawing's longer side."""
FINENESS = 0.0015
"""The ε of simplification as such a share; twice that, and so on, while there are too many points."""
COARSEST = 0.012
DOT = 0.04
"""Filled circles without an outline that are smaller than this share are dots, and so are even smaller strokes."""
MAX_PIECES = 100
"""Lines into which one curve may be flattened."""
RUN = 1_000
"""Points that are simplified at a time: Ramer-Douglas-Peucker takes up to the square of that."""

IDENTITY: Matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
# Bodies that are not drawn where they stand, or not at all.
PASSED_OVER = {
    *("defs", "symbol", "clippath", "mask", "marker", "pattern", "lineargradient", "radialgradient", "filter"),
    *("style", "script", "text", "foreignobject", "image", "metadata", "title", "desc", "namedview"),
}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_LENGTH = re.compile(rf"\s*({_NUMBER.pattern})\s*(px|pt|pc|mm|cm|in|em|ex|%)?\s*")
_TRANSFORM = re.compile(r"\s*,?\s*(matrix|translate|scale|rotate|skewX|skewY)\s*\(([^()]*)\)")
_UNITS = {"": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "mm": 96 / 25.4, "cm": 96 / 2.54, "in": 96.0}
_UNITS |= {"em": 16.0, "ex": 8.0}


class SvgError(strokes.DrawingError):
    """An SVG picture that cannot become a drawing.

    The message is one sentence; ``code`` says the same to programs: "large", "entities", "broken", "numbers", "loop",
    "detailed" or "empty".
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def drawing_from_svg(text: str | bytes, *, max_points: int = MAX_POINTS) -> Drawing:
    """The outlines of an SVG picture as strokes.

    Args:
        text: the file. Bytes may be in any encoding that they declare.
        max_points: of the whole drawing; curves are simplified as far as that needs, but not beyond recognition.

    Returns:
        Strokes in the units of the picture's own viewBox, y down, in the order in which they are painted. A picture's
        background (a filled rectangle as large as its viewBox) is left out.

    Raises:
        SvgError: not an SVG picture, too large, without any outline, or made to do harm.
    """
    if len(text) > MAX_CHARACTERS:
        raise SvgError(
            f"This SVG file has more than {MAX_CHARACTERS:,} characters; please leave out what is not lines.", "large"
        )
    root = _parse(text)
    if _tag(root) != "svg":
        raise SvgError("This file is not an SVG picture.", "broken")
    with np.errstate(all="ignore"):  # what overflows is found by _check
        shapes = _Reader(root).read()
        return _drawing([shape for shape in shapes if not shape.background] or shapes, max_points)


# ---------------------------------------------------------------------------------------------------
# XML


class _Builder(TreeBuilder):
    """Stops at the first element too many, before memory is spent."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.depth = 0

    def start(self, tag: Any, attrs: Any, /) -> Element:
        self.count += 1
        self.depth += 1
        if self.count > MAX_ELEMENTS or self.depth > MAX_DEPTH:
            raise SvgError(
                f"This SVG file has more than {MAX_ELEMENTS:,} elements, or nests them more than {MAX_DEPTH} deep.",
                "large",
            )
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag)


def _parse(text: str | bytes) -> Element:
    # A DOCTYPE is allowed, since Illustrator and old Inkscape write one; it is not fetched. Entities are refused.
    parser = DefusedXMLParser(target=_Builder(), forbid_dtd=False, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(text)
        root: Element = parser.close()
        return root
    except DefusedXmlException:
        message = "This SVG file declares entities, which are not read; save it as plain SVG."
        raise SvgError(message, "entities") from None
    except (ParseError, ValueError, LookupError) as error:
        if isinstance(error, SvgError):
            raise
        raise SvgError("This file is not an SVG picture, or it is damaged.", "broken") from None


def _tag(element: Element) -> str:
    """A tag's name in small letters, without its namespace."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


# ---------------------------------------------------------------------------------------------------
# Elements


@dataclass(frozen=True)
class _Shape:
    curve: Curve
    background: bool = False
    """A filled rectangle under all of the picture."""
    blob: bool = False
    """A filled circle or ellipse without an outline."""


@dataclass(frozen=True)
class _Context:
    """What an element inherits."""

    matrix: Matrix
    size: tuple[float, float]
    """Of the nearest viewport, which percentages refer to."""
    stroke: str = ""
    used: tuple[str, ...] = ()
    """The ids of the elements that are being used."""


class _Reader:
    """Walks through a picture without recursion, however deep it is."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self.named = {element.get("id", ""): element for element in root.iter()}
        self.drawn = self.characters = self.segments = 0

    def read(self) -> list[_Shape]:
        box = _view_box(self.root)
        width, height = _length(self.root, "width", 0.0, 300.0), _length(self.root, "height", 0.0, 150.0)
        size = (box[2], box[3]) if box else (width, height)
        self.page = box or (0.0, 0.0, *size)
        shapes: list[_Shape] = []
        children = _Context(IDENTITY, size, _style(self.root).get("stroke", ""))
        waiting = [(child, children) for child in reversed(self.root)]
        while waiting:
            element, outer = waiting.pop()
            tag = _tag(element)
            if tag in PASSED_OVER:
                continue
            self.drawn += 1
            self.characters += sum(map(len, element.attrib.values()))
            if self.drawn > MAX_ELEMENTS or self.characters > MAX_DRAWN_CHARACTERS:
                raise SvgError("This SVG picture is too large to be a drawing; simplify it first.", "large")
            style = _style(element)
            if style.get("display") == "none" or style.get("visibility") == "hidden":
                continue
            matrix = _combine(outer.matrix, _transform(element.get("transform", "")))
            stroke = style.get("stroke", outer.stroke)
            inner = _Context(matrix, outer.size, stroke, outer.used)
            if tag == "use":
                waiting += self._used(element, inner)
            elif tag == "svg":
                waiting += self._nested(element, inner)
            elif tag in _SHAPES:
                shapes += self._shapes(element, tag, inner)
            else:
                waiting += [(child, inner) for child in reversed(element)]
        return shapes

    def _used(self, element: Element, context: _Context) -> list[tuple[Element, _Context]]:
        name = element.get("href") or element.get("{http://www.w3.org/1999/xlink}href") or ""
        found = self.named.get(name[1:]) if name.startswith("#") and len(name) > 1 else None
        if found is None:  # in another file, or nowhere
            return []
        if name in context.used:
            raise SvgError("This SVG picture uses a part of itself inside that part, without end.", "loop")
        x, y = _length(element, "x", context.size[0], 0.0), _length(element, "y", context.size[1], 0.0)
        matrix = _combine(context.matrix, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))
        inner = _Context(matrix, context.size, context.stroke, (*context.used, name))
        if _tag(found) == "symbol":  # only drawn where it is used
            return self._nested(found, inner, element)
        return [(found, inner)]

    def _nested(
        self, element: Element, context: _Context, placed_by: Element | None = None
    ) -> list[tuple[Element, _Context]]:
        """The children of an ``svg`` or ``symbol`` within the picture, in its own coordinates.

        Args:
            placed_by: the ``use`` that says how large it is.
        """
        x, y = _length(element, "x", context.size[0], 0.0), _length(element, "y", context.size[1], 0.0)
        by = element if placed_by is None else placed_by
        width = _length(by, "width", context.size[0], context.size[0])
        height = _length(by, "height", context.size[1], context.size[1])
        matrix, size = _combine(context.matrix, np.array([[1.0, 0.0, x], [0.0, 1.0, y]])), (width, height)
        box = _view_box(element)
        if box:
            sx, sy = width / box[2], height / box[3]
            if element.get("preserveAspectRatio", "").strip() != "none":
                sx = sy = min(sx, sy)
            left, top = (width - sx * box[2]) / 2 - sx * box[0], (height - sy * box[3]) / 2 - sy * box[1]
            matrix, size = _combine(matrix, np.array([[sx, 0.0, left], [0.0, sy, top]])), (box[2], box[3])
        inner = _Context(matrix, size, context.stroke, context.used)
        return [(child, inner) for child in reversed(element)]

    def _shapes(self, element: Element, tag: str, context: _Context) -> Iterator[_Shape]:
        curves = _SHAPES[tag](element, context.size)
        plain = context.stroke in ("", "none")
        for curve in curves:
            self.segments += len(curve)
            if self.segments > MAX_SEGMENTS:
                raise SvgError("This SVG picture is too large to be a drawing; simplify it first.", "large")
            placed = curve @ context.matrix[:, :2].T + context.matrix[:, 2]
            _check(placed)
            yield _Shape(
                placed,
                background=tag == "rect" and plain and self._covers(placed),
                blob=tag in ("circle", "ellipse") and plain,
            )

    def _covers(self, curve: Curve) -> bool:
        x0, y0, width, height = self.page
        low, high = curve.min(axis=(0, 1)), curve.max(axis=(0, 1))
        slack = 0.01 * max(width, height)
        return bool(
            (low <= np.array([x0, y0]) + slack).all() and (high >= np.array([x0 + width, y0 + height]) - slack).all()
        )


def _style(element: Element) -> dict[str, str]:
    """What is known of an element's look; CSS goes before attributes."""
    found = {name: value.strip() for name in ("display", "visibility", "stroke") if (value := element.get(name))}
    for item in element.get("style", "").split(";"):
        name, _, value = item.partition(":")
        found[name.strip()] = value.strip()
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise SvgError("This SVG picture has numbers that are not finite or not of ordinary size.", "numbers")
    return value


def _length(element: Element, name: str, whole: float, usual: float) -> float:
    """An attribute in user units; percentages are of ``whole``, what cannot be read (as "auto") is ``usual``."""
    match = _LENGTH.fullmatch(element.get(name, ""))
    if match is None:
        return usual
    value, unit = _finite(match[1]), match[2] or ""
    return value * whole / 100.0 if unit == "%" else value * _UNITS[unit]


def _view_box(element: Element) -> tuple[float, float, float, float] | None:
    numbers = [_finite(number) for number in _NUMBER.findall(element.get("viewBox", ""))]
    if len(numbers) != 4 or numbers[2] <= 0 or numbers[3] <= 0:
        return None
    return numbers[0], numbers[1], numbers[2], numbers[3]


# ---------------------------------------------------------------------------------------------------
# Transforms


def _combine(outer: Matrix, inner: Matrix) -> Matrix:
    """First ``inner``, then ``outer``."""
    linear = outer[:, :2] @ inner[:, :2]
    return np.column_stack([linear, outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def _transform(text: str) -> Matrix:
    matrix, at = IDENTITY, 0
    for match in _TRANSFORM.finditer(text):
        if match.start() != at:
            break
        at = match.end()
        values = [_finite(number) for number in _NUMBER.findall(match[2])]
        matrix = _combine(matrix, _one_transform(match[1], values))
    if text[at:].strip():
        raise SvgError(f"This SVG picture has a transform that cannot be read: {text.strip()[:40]!r}.", "broken")
    _check(matrix)
    return matrix


def _one_transform(name: str, values: list[float]) -> Matrix:
    match name, values:
        case "matrix", [a, b, c, d, e, f]:
            return np.array([[a, c, e], [b, d, f]])
        case "translate", [x, *rest] if len(rest) < 2:
            return np.array([[1.0, 0.0, x], [0.0, 1.0, rest[0] if rest else 0.0]])
        case "scale", [x, *rest] if len(rest) < 2:
            return np.array([[x, 0.0, 0.0], [0.0, rest[0] if rest else x, 0.0]])
        case "rotate", [degrees, *centre] if len(centre) in (0, 2):
            cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            x, y = centre or (0.0, 0.0)
            return np.array([[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])
        case "skewX", [degrees]:
            return np.array([[1.0, math.tan(math.radians(degrees)), 0.0], [0.0, 1.0, 0.0]])
        case "skewY", [degrees]:
            return np.array([[1.0, 0.0, 0.0], [math.tan(math.radians(degrees)), 1.0, 0.0]])
    raise SvgError(f"This SVG picture has a transform that cannot be read: {name} of {len(values)} numbers.", "broken")


def _check(values: NDArray[np.float64]) -> None:
    if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) > strokes.MAX_COORDINATE:
        raise SvgError("This SVG picture has numbers that are not finite or not of ordinary size.", "numbers")


# ---------------------------------------------------------------------------------------------------
# Shapes, as cubic Bézier segments in their own coordinates


def _lines(points: Points) -> Curve:
    """Straight lines through (N, 2) points; a single point is a line to itself."""
    if len(points) == 1:
        points = np.repeat(points, 2, axis=0)
    start, end = points[:-1], points[1:]
    return np.stack([start, start + (end - start) / 3.0, end - (end - start) / 3.0, end], axis=1)


def _oval(cx: float, cy: float, rx: float, ry: float) -> list[Curve]:
    if rx <= 0 or ry <= 0:
        return []
    k = 4.0 / 3.0 * (math.sqrt(2.0) - 1.0)
    quarter = np.array([[1.0, 0.0], [1.0, k], [k, 1.0], [0.0, 1.0]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # row vectors, a quarter onwards
    quarters = [quarter]
    for _ in range(3):
        quarters.append(quarters[-1] @ turn)
    return [np.array(quarters) * (rx, ry) + (cx, cy)]


def _circle(element: Element, size: tuple[float, float]) -> list[Curve]:
    radius = _length(element, "r", math.hypot(*size) / math.sqrt(2.0), 0.0)
    return _oval(_length(element, "cx", size[0], 0.0), _length(element, "cy", size[1], 0.0), radius, radius)


def _ellipse(element: Element, size: tuple[float, float]) -> list[Curve]:
    rx, ry = _length(element, "rx", size[0], -1.0), _length(element, "ry", size[1], -1.0)
    rx, ry = (rx if rx >= 0 else ry), (ry if ry >= 0 else rx)  # "auto" is the other one
    return _oval(_length(element, "cx", size[0], 0.0), _length(element, "cy", size[1], 0.0), rx, ry)


def _rect(element: Element, size: tuple[float, float]) -> list[Curve]:
    x, y = _length(element, "x", size[0], 0.0), _length(element, "y", size[1], 0.0)
    width, height = _length(element, "width", size[0], 0.0), _length(element, "height", size[1], 0.0)
    if width <= 0 or height <= 0:
        return []
    rx, ry = _length(element, "rx", size[0], -1.0), _length(element, "ry", size[1], -1.0)
    rx, ry = (rx if rx >= 0 else ry), (ry if ry >= 0 else rx)
    rx, ry = min(max(rx, 0.0), width / 2.0), min(max(ry, 0.0), height / 2.0)
    if rx == 0 or ry == 0:
        corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]
        return [_lines(np.array(corners))]
    ovals = _oval(0.0, 0.0, rx, ry)[0]  # a quarter for each corner: lower right, lower left, upper left, upper right
    right, low = x + width - rx, y + height - ry
    pieces: list[Curve] = []
    for quarter, corner in zip(ovals, [(right, low), (x + rx, low), (x + rx, y + ry), (right, y + ry)], strict=True):
        placed = quarter + corner
        if pieces:
            pieces.append(_lines(np.stack([pieces[-1][-1, 3], placed[0]])))
        pieces.append(placed[None])
    pieces.append(_lines(np.stack([pieces[-1][-1, 3], pieces[0][0, 0]])))
    return [np.concatenate(pieces)]


def _line(element: Element, size: tuple[float, float]) -> list[Curve]:
    ends = [[_length(element, f"{axis}{k}", size[i], 0.0) for i, axis in enumerate("xy")] for k in (1, 2)]
    return [_lines(np.array(ends))]


def _polyline(element: Element, size: tuple[float, float]) -> list[Curve]:
    numbers = [float(number) for number in _NUMBER.findall(element.get("points", ""))]
    points = np.array(numbers[: len(numbers) // 2 * 2]).reshape(-1, 2)
    return [_lines(points)] if len(points) else []


def _polygon(element: Element, size: tuple[float, float]) -> list[Curve]:
    open_ = _polyline(element, size)
    return [np.concatenate([curve, _lines(np.stack([curve[-1, 3], curve[0, 0]]))]) for curve in open_]


def _path(element: Element, size: tuple[float, float]) -> list[Curve]:
    text = element.get("d", "").strip()
    if len(_NUMBER.findall(text)) > 6 * MAX_SEGMENTS:  # quickly told, before the path is read
        raise SvgError("This SVG picture is too large to be a drawing; simplify it first.", "large")
    try:
        segments = parse_path(text)
    except (ValueError, AssertionError, IndexError, TypeError, ArithmeticError):
        raise SvgError("This SVG picture has a path that cannot be read.", "broken") from None
    curves: list[Curve] = []
    pieces: list[Curve] = []
    moved: complex | None = None

    def end() -> None:
        if pieces:
            curves.append(np.concatenate(pieces))
            pieces.clear()

    for segment in segments:
        if isinstance(segment, Move):
            end()
            moved = segment.end
            continue
        if not isinstance(segment, Close) or segment.start != segment.end or not pieces:
            pieces.append(_segment(segment))
        if isinstance(segment, Close):
            end()
        moved = None
    end()
    if moved is not None and not curves:  # a path that only says where
        curves.append(_lines(_pairs([moved])))
    return curves


def _segment(segment: Any) -> Curve:
    match segment:
        case CubicBezier():
            return _pairs([segment.start, segment.control1, segment.control2, segment.end])[None]
        case QuadraticBezier():
            handles = [end + 2.0 / 3.0 * (segment.control - end) for end in (segment.start, segment.end)]
            return _pairs([segment.start, *handles, segment.end])[None]
        case Arc() if _is_round(segment):
            return _arc(segment)
        case Line() | Close() | Arc():
            return _lines(_pairs([segment.start, segment.end]))
    raise SvgError("This SVG picture has a path that cannot be read.", "broken")


def _is_round(arc: Any) -> bool:
    """Whether an arc is more than a straight line; as the standard says, it is one where a radius is 0."""
    chord, radii = abs(arc.end - arc.start), (abs(arc.radius.real), abs(arc.radius.imag))
    return bool(chord > 0.0 and min(radii) > 0.0 and max(radii) < 1e5 * chord)


def _arc(arc: Any) -> Curve:
    """An elliptic arc as cubic segments of at most an eighth of a turn."""
    values = (arc.theta, arc.delta, arc.radius.real, arc.radius.imag, arc.center.real, arc.center.imag, arc.rotation)
    if not all(map(math.isfinite, values)):
        raise SvgError("This SVG picture has numbers that are not finite or not of ordinary size.", "numbers")
    count = max(1, math.ceil(abs(arc.delta) / 45.0))
    angles = np.radians(arc.theta + arc.delta * np.arange(count + 1) / count)
    handle = 4.0 / 3.0 * math.tan(math.radians(arc.delta / count) / 4.0)
    on, along = np.stack([np.cos(angles), np.sin(angles)], 1), np.stack([-np.sin(angles), np.cos(angles)], 1)
    unit = np.stack([on[:-1], on[:-1] + handle * along[:-1], on[1:] - handle * along[1:], on[1:]], axis=1)
    # Radii that are too small for the ends have been enlarged by radius_scale.
    scale = getattr(arc, "radius_scale", 1.0) or 1.0
    cos, sin = math.cos(math.radians(arc.rotation)), math.sin(math.radians(arc.rotation))
    turned = unit * (arc.radius.real * scale, arc.radius.imag * scale) @ np.array([[cos, sin], [-sin, cos]])
    curve: Curve = turned + np.array([arc.center.real, arc.center.imag])
    return curve


def _pairs(values: list[complex]) -> Points:
    return np.array([(value.real, value.imag) for value in values])


_SHAPES: dict[str, Callable[[Element, tuple[float, float]], list[Curve]]] = {
    "path": _path,
    "polyline": _polyline,
    "polygon": _polygon,
    "line": _line,
    "rect": _rect,
    "circle": _circle,
    "ellipse": _ellipse,
}


# ---------------------------------------------------------------------------------------------------
# Curves to strokes


def _drawing(shapes: list[_Shape], max_points: int) -> Drawing:
    if not shapes:
        raise SvgError("This SVG picture has no lines that can be read.", "empty")
    everything = np.concatenate([shape.curve.reshape(-1, 2) for shape in shapes])
    side = float(np.ptp(everything, axis=0).max())
    drawing: Drawing = []
    flat = 0
    for shape in shapes:
        extent = float(np.ptp(shape.curve.reshape(-1, 2), axis=0).max())
        if extent <= (DOT if shape.blob else 0.05 * DOT) * side:
            drawing.append(shape.curve.reshape(-1, 2).mean(axis=0, keepdims=True))
            continue
        counts = _pieces(shape.curve, SMOOTHNESS * side)
        flat += int(counts.sum())
        if flat > MAX_FLAT:
            raise SvgError("This SVG picture is too detailed to be a drawing; simplify it first.", "detailed")
        drawing.append(_flatten(shape.curve, counts))
    fineness = FINENESS
    while fineness <= COARSEST:
        drawing = [_simplify(stroke, fineness * side) for stroke in drawing]
        if sum(map(len, drawing)) <= max_points and len(drawing) <= strokes.MAX_STROKES:
            return drawing
        fineness *= 2.0
    raise SvgError("This SVG picture is too detailed to be a drawing; simplify it first.", "detailed")


def _simplify(stroke: Points, epsilon: float) -> Points:
    if len(stroke) <= RUN:
        return strokes.simplify([stroke], epsilon)[0]
    runs = [strokes.simplify([stroke[at : at + RUN + 1]], epsilon)[0] for at in range(0, len(stroke) - 1, RUN)]
    return np.concatenate([runs[0], *(run[1:] for run in runs[1:])])


def _pieces(curve: Curve, tolerance: float) -> NDArray[np.int64]:
    """(K,): into how many lines each segment must be cut for these to lie within ``tolerance`` of it."""
    bend = np.maximum(
        np.hypot(*(curve[:, 0] - 2.0 * curve[:, 1] + curve[:, 2]).T),
        np.hypot(*(curve[:, 1] - 2.0 * curve[:, 2] + curve[:, 3]).T),
    )
    # |B''| is at most six times the bend, and a chord of B strays by at most |B''| / 8n².
    counts: NDArray[np.int64] = np.clip(np.ceil(np.sqrt(0.75 * bend / tolerance)), 1, MAX_PIECES).astype(np.int64)
    return counts


def _flatten(curve: Curve, counts: NDArray[np.int64]) -> Points:
    """Points along a curve, each segment cut into so many lines; (P, 2)."""
    which = np.repeat(np.arange(len(curve)), counts)
    step = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    t = (step / counts[which])[:, None]
    a, b, c, d = curve[which].transpose(1, 0, 2)
    points = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    return np.concatenate([curve[:1, 0], points])
