"""What the page's share panel asks of the server: to read an SVG picture, and to make an animation.

``POST /share/svg`` takes the text of a picture and answers ``{"strokes": [[[x, y], ...], ...]}``; ``POST /share/gif``
takes ``{"strokes": ..., "by": ["hand" | "net", ...]}`` in pad units and answers a GIF. Both answer
``{"code", "message"}`` where they cannot. Nothing of either is kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.studio import MAX_POINTS, MAX_STROKES, PAD_SIDE
from sketch_core import render, strokes, svg

log = logging.getLogger(__name__)

MAX_BYTES = 250_000
"""Of a picture or a drawing; the server takes bodies of 262,144."""
WAITING = 8
"""Requests that may wait while one is being worked on; further ones are told "busy"."""
INK, NETWORK_INK = "#1f2430", "#c2410c"
"""As in the page's own pictures (``canvas/share.js``), and so are the widths, in pad units."""
WIDTH, NETWORK_WIDTH = 5.0, 3.6
SIDE = 512
"""Pixels of an animation."""
PEN_SPEED = 450.0
"""Pad units a second."""
SECONDS = (1.5, 10.0)
"""A drawing takes no less and no more: longer ones are drawn faster."""
HOLD = 2.5
"""Seconds for which the finished drawing stays."""


class ShareError(ValueError):
    """One clear sentence, and a code for the page, which says it in the visitor's language."""

    def __init__(self, message: str, code: str, status: int = 422) -> None:
        super().__init__(message)
        self.code, self.status = code, status


def share_routes() -> list[Route]:
    """The routes to add to the page's server. Work is done one by one, beside the server's own thread."""
    turn = asyncio.Lock()
    waiting = 0

    def route(path: str, work: Callable[[bytes], Response]) -> Route:
        async def answer(request: Request) -> Response:
            nonlocal waiting
            try:
                body = await _body(request)
                if waiting > WAITING:
                    raise ShareError("Many people are sharing right now; please try again in a moment.", "busy", 503)
                waiting += 1
                try:
                    async with turn:
                        return await asyncio.to_thread(work, body)
                finally:
                    waiting -= 1
            except ShareError as error:
                return _refusal(str(error), error.code, error.status)
            except svg.SvgError as error:
                return _refusal(str(error), error.code, 422)
            except strokes.DrawingError as error:
                return _refusal(str(error), "drawing", 422)
            except Exception:  # a fault of ours: a sentence all the same
                log.exception("A request to share failed")
                return _refusal("Something went wrong on the server; your drawing is safe.", "internal", 500)

        return Route(path, answer, methods=["POST"])

    return [route("/share/svg", read_svg), route("/share/gif", make_gif)]


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ShareError(f"This file has more than {MAX_BYTES:,} bytes.", "large", 413)
    return body


def _refusal(message: str, code: str, status: int) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status)


def read_svg(body: bytes) -> Response:
    """The strokes of a picture, in its own coordinates.

    Raises:
        SvgError: see :func:`sketch_core.svg.drawing_from_svg`.
    """
    drawing = svg.drawing_from_svg(body, max_points=MAX_POINTS)
    return JSONResponse({"strokes": strokes.drawing_to_json(drawing, decimals=3)})


def make_gif(body: bytes) -> Response:
    """A drawing as it is drawn, each stroke in the colour and width of whoever drew it.

    Raises:
        ShareError, DrawingError: not a drawing.
    """
    try:
        fields: Any = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if type(fields) is not dict:
        raise ShareError("A drawing must be a JSON object.", "drawing")
    drawing = strokes.drawing_from_json(fields.get("strokes"), max_strokes=MAX_STROKES, max_points=MAX_POINTS)
    by = fields.get("by")
    if type(by) is not list or len(by) != len(drawing):  # empty strokes are none
        raise ShareError("A drawing must say of each stroke whose it is.", "drawing")
    picture = render.gif(
        drawing,
        size=SIDE,
        seconds=_seconds(drawing),
        hold=HOLD,
        color=INK,
        width=WIDTH * SIDE / PAD_SIDE,
        accents=[one == "net" for one in by],
        accent_color=NETWORK_INK,
        accent_width=NETWORK_WIDTH * SIDE / PAD_SIDE,
        view=_view(drawing),
    )
    return Response(picture, media_type="image/gif")


def _seconds(drawing: strokes.Drawing) -> float:
    length = sum(float(np.hypot(*np.diff(stroke, axis=0).T).sum()) for stroke in drawing)
    return float(np.clip(length / PEN_SPEED, *SECONDS))


def _view(drawing: strokes.Drawing) -> render.View:
    """The pad, or the square around it that holds a drawing which leaves it."""
    x0, y0, x1, y1 = strokes.bounds(drawing)
    low, high = min(x0, y0, 0.0), max(x1, y1, PAD_SIDE)
    slack = 0.0 if (low, high) == (0.0, PAD_SIDE) else 12.0
    return low - slack, low - slack, high + slack, high + slack
