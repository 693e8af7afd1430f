"""What the page's buttons do: JSON strokes in, JSON strokes out.

Both ways to the network, the page's WebSocket (:mod:`app.live`) and the named endpoints under "Use via API"
(:mod:`app.page`), check their input here and draw through one :class:`Studio`, so limits hold for both.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sketch_core import strokes
from sketch_core.strokes import Drawing

Row = tuple[int, float, float, int]
"""(k, x, y, pen): a new point of drawing k; pen 0 starts a stroke there, 1 draws a line there, 2: k has ended."""
Do = Literal["complete", "vary", "draw"]

DOS: tuple[Do, ...] = ("complete", "vary", "draw")
MAX_DRAWINGS = 9
MAX_POINTS = 2000
MAX_STROKES = 400
MAX_SEED = 2**31 - 1
TEMPERATURES = (0.1, 1.0)
PAD_SIDE = 512.0
"""The pad is a square of this many units, whatever the screen."""


class StudioError(ValueError):
    """A request that cannot be served: one clear sentence for the person, and a code for programs."""

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code


class Sketcher(Protocol):
    """The part of ``sketch_core.Sketcher`` that the page needs."""

    @property
    def categories(self) -> list[str]: ...

    def stream(self, kind: Do, drawing: Any = None, **options: Any) -> Iterator[Sequence[Any]]: ...


@dataclass(frozen=True)
class Request:
    """A checked request."""

    do: Do
    drawing: Drawing
    category: str | None = None
    temperature: float = 0.4
    seed: int = 0
    n: int = MAX_DRAWINGS
    pen_down: bool = False


def check_request(fields: dict[str, Any], categories: Sequence[str]) -> Request:
    """Check every field of a request that came as JSON; those left out have their usual values.

    Raises:
        StudioError: names the first field that is wrong. Types are compared exactly since bool is an int in
            Python, and JSON's NaN and 1e999 arrive as floats.
    """
    do = fields.get("do")
    if do not in DOS:
        raise StudioError(f"What to do must be one of {', '.join(DOS)}.")

    category = fields.get("category")
    if category is not None and (type(category) is not str or category not in categories):
        raise StudioError(f"There is no category {str(category)[:60]!r}; choose one of the list, or none for any.")

    temperature = fields.get("temperature", Request.temperature)
    lowest, highest = TEMPERATURES
    if type(temperature) not in (int, float) or not math.isfinite(temperature):
        raise StudioError("The temperature must be a number.")
    if not lowest <= temperature <= highest:
        raise StudioError(f"The temperature must be from {lowest} to {highest}.")

    seed = fields.get("seed", Request.seed)
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise StudioError(f"The seed must be a whole number from 0 to {MAX_SEED}.")

    n = fields.get("n", Request.n)
    if type(n) is not int or not 1 <= n <= MAX_DRAWINGS:
        raise StudioError(f"The number of drawings must be a whole number from 1 to {MAX_DRAWINGS}.")

    pen_down = fields.get("pen_down", Request.pen_down)
    if type(pen_down) is not bool:
        raise StudioError("pen_down must be true or false.")

    drawing: Drawing = []
    if do != "draw":
        try:
            drawing = strokes.drawing_from_json(fields.get("strokes"), max_strokes=MAX_STROKES, max_points=MAX_POINTS)
        except strokes.DrawingError as error:
            raise StudioError(str(error)) from error
    return Request(do, drawing, category, float(temperature), seed, n, pen_down)


class Studio:
    """One network at work for everyone, in a few threads, with a short line of people waiting.

    Args:
        workers: requests sampled at the same time.
        waiting: requests that may wait for a worker; further ones are told that it is busy.
    """

    def __init__(self, sketcher: Sketcher, *, workers: int | None = None, waiting: int = 24) -> None:
        self.sketcher = sketcher
        self.categories = list(sketcher.categories)
        workers = workers or max(1, min(4, os.cpu_count() or 1))
        self._most = workers + waiting
        self._admitted = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="studio")

    # -- drawing -----------------------------------------------------------------------------------

    def rows(self, request: Request, cancelled: Callable[[], bool]) -> Iterator[list[Row]]:
        """The points of a request's drawings as they are drawn.

        The one place that knows how drawings are made: a scheduler that draws for several people in one
        batch takes the place of ``sketcher.stream`` here, and nothing else changes.
        """
        options: dict[str, Any] = {}
        if request.do == "complete":
            options = {"pen_down": request.pen_down, "canvas": PAD_SIDE}
        for rows in self.sketcher.stream(
            request.do,
            request.drawing if request.do != "draw" else None,
            category=request.category,
            temperature=request.temperature,
            n=request.n,
            seed=request.seed,
            cancelled=cancelled,
            **options,
        ):
            yield [(int(k), round(float(x), 1), round(float(y), 1), int(pen)) for k, x, y, pen in rows]

    def start(
        self, request: Request, on_rows: Callable[[list[Row]], None], cancelled: Callable[[], bool]
    ) -> Future[list[list[Any]]]:
        """Draw in a worker thread.

        Args:
            on_rows: called there with each list of new points.
            cancelled: asked before every step.

        Returns:
            A future of the drawings as JSON; its errors are ``StudioError``.

        Raises:
            StudioError: code "busy", too many people are waiting.
        """
        with self._lock:
            if self._admitted >= self._most:
                raise StudioError("Many people are drawing right now; please try again in a moment.", "busy")
            self._admitted += 1

        def leave(_: Future[list[list[Any]]]) -> None:
            with self._lock:
                self._admitted -= 1

        future = self._threads.submit(self._draw, request, on_rows, cancelled)
        future.add_done_callback(leave)
        return future

    def _draw(
        self, request: Request, on_rows: Callable[[list[Row]], None], cancelled: Callable[[], bool]
    ) -> list[list[Any]]:
        drawings: list[list[Any]] = [[] for _ in range(request.n)]
        if cancelled():  # while it waited for a worker
            return drawings
        try:
            for rows in self.rows(request, cancelled):
                for k, x, y, pen in rows:
                    if pen == 0:
                        drawings[k].append([[x, y]])
                    elif pen == 1:
                        drawings[k][-1].append([x, y])
                on_rows(rows)
        except StudioError:
            raise
        except ValueError as error:  # sketch_core's are one clear sentence each
            raise StudioError(str(error)) from error
        return drawings

    # -- named endpoints ---------------------------------------------------------------------------

    def answer(self, **fields: Any) -> list[list[Any]]:
        """Check a request, draw, and return the drawings as JSON: n lists of strokes of [x, y].

        Raises:
            StudioError: one clear sentence.
        """
        request = check_request(fields, self.categories)
        return self.start(request, lambda rows: None, lambda: False).result()
