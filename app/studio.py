"""What the page's buttons do: JSON strokes in, JSON strokes out.

Both ways to the network, the page's WebSocket (:mod:`app.live`) and the named endpoints under "Use via API"
(:mod:`app.page`), check their input here and draw through one :class:`Studio`, so limits hold for both.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from sketch_core import Sketcher, strokes
from sketch_core.generate import GUIDANCE, MAX_GUIDANCE, StreamRow
from sketch_core.scheduler import MAX_WAITING, BusyError, Scheduler
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


Answer = Future[list[list[Any]]]
BUSY = "Many people are drawing right now; please try again in a moment."


class StudioError(ValueError):
    """A request that cannot be served: one clear sentence for the person, and a code for programs."""

    def __init__(self, message: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.code = code


def as_studio_error(error: BaseException) -> BaseException:
    """What a person may read of an error: sketch_core's are one clear sentence each."""
    if isinstance(error, BusyError):
        return StudioError(BUSY, "busy")
    if isinstance(error, ValueError) and not isinstance(error, StudioError):
        return StudioError(str(error))
    return error


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
    guidance: float = GUIDANCE

    @property
    def start(self) -> Drawing | None:
        """What is drawn already."""
        return None if self.do == "draw" else self.drawing

    def options(self) -> dict[str, Any]:
        """Options of :meth:`sketch_core.Sketcher.prepare`."""
        options: dict[str, Any] = {
            name: getattr(self, name) for name in ("category", "temperature", "seed", "n", "guidance")
        }
        if self.do == "complete":
            options |= {"pen_down": self.pen_down, "canvas": PAD_SIDE}
        return options


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

    guidance = fields.get("guidance", Request.guidance)
    if type(guidance) not in (int, float) or not 0 <= guidance <= MAX_GUIDANCE:  # NaN is in no range
        raise StudioError(f"The guidance must be a number from 0 to {MAX_GUIDANCE:g}.")

    drawing: Drawing = []
    if do != "draw":
        try:
            drawing = strokes.drawing_from_json(fields.get("strokes"), max_strokes=MAX_STROKES, max_points=MAX_POINTS)
        except strokes.DrawingError as error:
            raise StudioError(str(error)) from error
    return Request(do, drawing, category, float(temperature), seed, n, pen_down, float(guidance))


class Studio:
    """One network at work for everyone: drawings in the making share its steps, beyond a limit people wait in line.

    Args:
        readers: threads that read starts and encode drawings, before these join the others.
        waiting: requests that may wait, for a reader or for room in the batch; further ones are told "busy".
        continuous: whether requests share steps; without, each runs by itself in a reader (for comparison).
    """

    def __init__(
        self,
        sketcher: Sketcher,
        *,
        readers: int | None = None,
        waiting: int = MAX_WAITING,
        continuous: bool = True,
    ) -> None:
        self.sketcher = sketcher
        self.categories = sketcher.categories
        self.scheduler = Scheduler(sketcher.engine, max_waiting=waiting) if continuous else None
        readers = readers or max(1, min(4, os.cpu_count() or 1))
        self._most = readers + waiting
        self._reading = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(readers, thread_name_prefix="reader")

    # -- drawing -----------------------------------------------------------------------------------

    def start(self, request: Request, on_rows: Callable[[list[Row]], None], cancelled: Callable[[], bool]) -> Answer:
        """Draw in other threads.

        Args:
            on_rows: called there with each list of new points.
            cancelled: asked before every step.

        Returns:
            A future of the drawings as JSON; its errors are ``StudioError``.

        Raises:
            StudioError: code "busy", too many people are waiting.
        """
        with self._lock:
            if self._reading >= self._most:
                raise StudioError(BUSY, "busy")
            self._reading += 1
        answer: Answer = Future()
        drawings: list[list[Any]] = [[] for _ in range(request.n)]

        def take(rows: list[StreamRow]) -> None:
            rounded = [(int(k), round(float(x), 1), round(float(y), 1), int(pen)) for k, x, y, pen in rows]
            for k, x, y, pen in rounded:
                if pen == 0:
                    drawings[k].append([[x, y]])
                elif pen == 1:
                    drawings[k][-1].append([x, y])
            on_rows(rounded)

        def finish(error: BaseException | None) -> None:
            if answer.set_running_or_notify_cancel():
                if error is None:
                    answer.set_result(drawings)
                else:
                    answer.set_exception(as_studio_error(error))

        def read() -> None:
            """In a reader."""
            try:
                if cancelled():
                    finish(None)
                    return
                options = request.options()
                if self.scheduler is None:
                    for rows in self.sketcher.stream(request.do, request.start, cancelled=cancelled, **options):
                        take(rows)
                    finish(None)
                    return
                job = self.sketcher.prepare(request.do, request.start, **options)
                self.scheduler.submit(job, take, cancelled).add_done_callback(lambda done: finish(done.exception()))
            except Exception as error:  # handed on to whoever waits for the answer
                finish(error)
            finally:
                with self._lock:
                    self._reading -= 1

        self._threads.submit(read)
        return answer

    def warm(self) -> None:
        """Draw a little of each kind, in a thread of its own, so that the first visitor waits for no compiler."""

        def draw() -> None:
            try:
                some = self.answer(do="draw", n=2)[0]
                self.answer(do="complete", strokes=some, n=1)
                self.answer(do="vary", strokes=some, n=1)
            except StudioError:  # closed, or busy already
                pass

        threading.Thread(target=draw, name="warm-up", daemon=True).start()

    def close(self) -> None:
        """Take no more requests; what is in flight is answered."""
        self._threads.shutdown(wait=True)
        if self.scheduler is not None:
            self.scheduler.close()

    # -- named endpoints ---------------------------------------------------------------------------

    def answer(self, **fields: Any) -> list[list[Any]]:
        """Check a request, draw, and return the drawings as JSON: n lists of strokes of [x, y].

        Raises:
            StudioError: one clear sentence.
        """
        request = check_request(fields, self.categories)
        return self.start(request, lambda rows: None, lambda: False).result()
