"""What the page's buttons do: JSON strokes in, JSON strokes out.

Both ways to the network, the page's WebSocket (:mod:`app.live`) and the named endpoints under "Use via API"
(:mod:`app.page`), check their input here and draw through one :class:`Studio`, so limits hold for both.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from app import logs
from sketch_core import Sketcher, checkpoint, strokes
from sketch_core.generate import BLENDS, GUIDANCE, MAX_GUIDANCE, SPREAD, Kind, StreamRow, blend_size
from sketch_core.inspection import guess, inspect
from sketch_core.scheduler import MAX_WAITING, BusyError, Crew
from sketch_core.strokes import Drawing

log = logging.getLogger(__name__)

Row = tuple[int, float, float, int]
"""(k, x, y, pen): a new point of drawing k; pen 0 starts a stroke there, 1 draws a line there, 2: k has ended."""
Do = Literal["complete", "vary", "draw", "compare", "blend", "inspect", "guess"]

DOS: tuple[Do, ...] = ("complete", "vary", "draw", "compare", "blend", "inspect", "guess")
MAX_DRAWINGS = 9
MAX_COMPARED = 60
MAX_STEPS = {"strip": 9, "grid": 5, "sum": 9}
MAX_SPREAD = 3.0
FIGURES = 4
"""Decimals of what "inspect" tells."""
MAX_POINTS = 2000
MAX_STROKES = 400
MAX_SEED = 2**31 - 1
TEMPERATURES = (0.1, 1.0)
PAD_SIDE = 512.0
"""The pad is a square of this many units, whatever the screen."""
MAX_OTHERS = 3
"""Networks in memory beside the first; the one that was used least recently makes room."""


Answer = Future[Any]
"""Of the drawings as JSON; for "inspect" and "guess", of what they found."""
BUSY = "Many people are drawing right now; please try again in a moment."
STOPPING = "The server is restarting; please try again in a moment."


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
    model: str | None = None
    """A checkpoint's name; None is the studio's first."""
    category: str | None = None
    temperature: float = 0.4
    seed: int = 0
    n: int = MAX_DRAWINGS
    pen_down: bool = False
    guidance: float = GUIDANCE
    spread: float = SPREAD
    of: Literal["complete", "vary", "draw"] = "complete"
    """What is compared."""
    temperatures: tuple[float, ...] = ()
    seeds: int = 1
    """Compared at so many seeds from ``seed`` on."""
    drawings: tuple[Drawing, ...] = ()
    categories: tuple[str | None, ...] = ()
    how: str = "strip"
    steps: int = 9

    @property
    def draws(self) -> bool:
        """Whether it is answered by drawings; otherwise by what was found."""
        return self.do not in ("inspect", "guess")

    @property
    def kind(self) -> Kind:
        """Which of the Sketcher's jobs it is."""
        if self.do == "compare":
            return self.of
        if not self.draws:
            raise ValueError(f"{self.do} draws nothing.")
        return cast("Kind", self.do)

    @property
    def start(self) -> Drawing | None:
        """What is drawn already."""
        return self.drawing or None

    @property
    def results(self) -> int:
        """How many drawings it gives."""
        if self.do == "compare":
            return len(self.temperatures) * self.seeds
        if self.do == "blend":
            return blend_size(self.how, self.steps)
        return self.n

    def options(self) -> dict[str, Any]:
        """Options of :meth:`sketch_core.Sketcher.prepare`."""
        options: dict[str, Any] = {"guidance": self.guidance}
        if self.do == "compare":
            options |= {
                "category": self.category,
                "temperatures": self.temperatures,
                "seeds": [self.seed + k for k in range(self.seeds)],
            }
        elif self.do == "blend":
            options |= {
                name: getattr(self, name) for name in ("drawings", "categories", "how", "steps", "temperature", "seed")
            }
        else:
            options |= {name: getattr(self, name) for name in ("category", "temperature", "seed", "n")}
        if self.kind == "complete":
            options |= {"pen_down": self.pen_down, "canvas": PAD_SIDE}
        elif self.kind == "vary":
            options["spread"] = self.spread
        else:
            options["size"] = PAD_SIDE
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

    def number(name: str, usual: float, lowest: float, highest: float, words: str) -> float:
        value = fields.get(name, usual)
        if type(value) not in (int, float) or not lowest <= value <= highest:  # NaN is in no range
            raise StudioError(f"{words} must be a number from {lowest:g} to {highest:g}.")
        return float(value)

    def whole(name: str, usual: int, lowest: int, highest: int, words: str) -> int:
        value = fields.get(name, usual)
        if type(value) is not int or not lowest <= value <= highest:
            raise StudioError(f"{words} must be a whole number from {lowest} to {highest}.")
        return value

    def known(category: Any) -> str | None:
        if category is not None and (type(category) is not str or category not in categories):
            raise StudioError(f"There is no category {str(category)[:60]!r}; choose one of the list, or none for any.")
        return category

    def a_list(name: str, lowest: int, highest: int) -> list[Any]:
        value = fields.get(name)
        if type(value) is not list or not lowest <= len(value) <= highest:
            raise StudioError(f"{name} must be a list of {lowest} to {highest}.")
        return value

    def drawn(value: Any) -> Drawing:
        try:
            return strokes.drawing_from_json(value, max_strokes=MAX_STROKES, max_points=MAX_POINTS)
        except strokes.DrawingError as error:
            raise StudioError(str(error)) from error

    pen_down = fields.get("pen_down", False)
    if type(pen_down) is not bool:
        raise StudioError("pen_down must be true or false.")
    request = Request(
        do=do,
        drawing=[],
        category=known(fields.get("category")),
        temperature=number("temperature", Request.temperature, *TEMPERATURES, "The temperature"),
        seed=whole("seed", Request.seed, 0, MAX_SEED, "The seed"),
        n=whole("n", Request.n, 1, MAX_DRAWINGS, "The number of drawings"),
        pen_down=pen_down,
        guidance=number("guidance", Request.guidance, 0, MAX_GUIDANCE, "The guidance"),
        spread=number("spread", Request.spread, 0, MAX_SPREAD, "The spread"),
    )
    if do == "compare":
        of = fields.get("of", "complete")
        if of not in ("complete", "vary", "draw"):
            raise StudioError("What to compare must be one of complete, vary, draw.")
        given = a_list("temperatures", 1, 10)
        lowest, highest = TEMPERATURES
        if any(type(value) not in (int, float) or not lowest <= value <= highest for value in given):
            raise StudioError(f"Each temperature must be a number from {lowest} to {highest}.")
        heats = tuple(float(value) for value in given)
        seeds = whole("seeds", 1, 1, MAX_COMPARED // len(heats), "The number of seeds")
        request = replace(request, of=of, temperatures=heats, seeds=seeds)
    if do == "blend":
        how = fields.get("how", "strip")
        if type(how) is not str or how not in BLENDS:
            raise StudioError(f"How to blend must be one of {', '.join(BLENDS)}.")
        drawings = tuple(drawn(value) for value in a_list("drawings", BLENDS[how], BLENDS[how]))
        names: tuple[str | None, ...] = (None,) * len(drawings)
        if fields.get("categories") is not None:
            names = tuple(known(name) for name in a_list("categories", len(drawings), len(drawings)))
        steps = whole("steps", min(Request.steps, MAX_STEPS[how]), 2, MAX_STEPS[how], "The number of steps")
        return replace(request, how=how, drawings=drawings, categories=names, steps=steps)
    if do != "draw" and not (do == "compare" and request.of == "draw"):
        request = replace(request, drawing=drawn(fields.get("strokes")))
    return request


class Network:
    """A checkpoint at work: drawings in the making share its steps."""

    def __init__(self, sketcher: Sketcher, scheduler: Crew | None) -> None:
        self.sketcher, self.scheduler = sketcher, scheduler

    def close(self, *, finish: bool = True) -> None:
        if self.scheduler is not None:
            self.scheduler.close(finish=finish)


class Studio:
    """Networks at work for everyone: drawings in the making share steps, beyond a limit people wait in line.

    Args:
        sketcher: the first network, which answers where no other is named.
        readers: threads that read starts and encode drawings, before these join the others.
        waiting: requests that may wait, for a reader or for room in the batch; further ones are told "busy".
        continuous: whether requests share steps; without, each runs by itself in a reader (for comparison).
        others: folders of checkpoints by name, looked up anew at each visit and loaded when they are asked for.
    """

    def __init__(
        self,
        sketcher: Sketcher,
        *,
        readers: int | None = None,
        waiting: int = MAX_WAITING,
        continuous: bool = True,
        others: Callable[[], dict[str, Path]] = dict,
    ) -> None:
        self.sketcher = sketcher
        self.categories = sketcher.categories
        self.folders = others
        """Folders of the checkpoints there are now, by name."""
        self._waiting, self._continuous = waiting, continuous
        self._first = self._network(sketcher)
        self.scheduler = self._first.scheduler
        self._others: OrderedDict[str, Network] = OrderedDict()  # those that are loaded, the latest used last
        self._loading = threading.Lock()
        self._left_out: set[str] = set()
        self.readers = readers or max(1, min(4, os.cpu_count() or 1))
        self._most = self.readers + waiting
        self._reading = 0
        self.ready = True
        """Warmed up, and not closed."""
        self.in_flight = 0
        """Requests that have been taken and not been answered."""
        self.on_end: Callable[[str, str, float, float | None], Any] = _untold
        """Told of each request at its end: what it did, how it ended ("done", "cancelled", "internal" or an error's
        code), the seconds it took, and those to its first points (None without any). From any thread; must not block
        and not raise."""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(self.readers, thread_name_prefix="reader")

    # -- networks ----------------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """What the page must know of each network: name, categories, what it lacks and why.

        Checkpoints that cannot be read are left out, with one line in the log.
        """
        found = [_described(self.sketcher.source)]
        for name, folder in self.folders().items():
            if name == self.sketcher.name:
                continue
            try:
                found.append(_described(_describe(folder)))
            except checkpoint.CheckpointError as error:
                if name not in self._left_out:
                    log.warning("%s", error)
                    self._left_out.add(name)
        return found

    def network(self, name: str | None) -> Network:
        """A network by its name, loaded if it is not.

        Raises:
            StudioError: there is none, or it cannot be loaded.
        """
        if name is None or name == self.sketcher.name:  # waits for no other's loading
            return self._first
        with self._loading:
            if name not in self._others:
                folder = self.folders().get(name)
                if folder is None:
                    raise StudioError(f"There is no network {name[:60]!r}.")
                try:
                    loaded = Sketcher(checkpoint.load(folder), device=str(self.sketcher.device))
                except checkpoint.CheckpointError as error:
                    raise StudioError(str(error)) from error
                self._others[name] = self._network(loaded)
                if len(self._others) > MAX_OTHERS:
                    _, oldest = self._others.popitem(last=False)
                    # What it draws for others is drawn to the end.
                    threading.Thread(target=oldest.close, daemon=True).start()
            self._others.move_to_end(name)
            return self._others[name]

    def _network(self, sketcher: Sketcher) -> Network:
        return Network(sketcher, Crew(sketcher.engine, max_waiting=self._waiting) if self._continuous else None)

    def check(self, fields: dict[str, Any]) -> Request:
        """A request that came as JSON, checked; see :func:`check_request`.

        Raises:
            StudioError: one clear sentence.
        """
        name = fields.get("model")
        if name is None or name == self.sketcher.name:
            source: checkpoint.Checkpoint | checkpoint.Described = self.sketcher.source
        else:
            folder = self.folders().get(name) if type(name) is str else None
            if folder is None:
                raise StudioError(f"There is no network {str(name)[:60]!r}; choose one of the list.")
            try:
                source = _describe(folder)
            except checkpoint.CheckpointError as error:
                raise StudioError(str(error)) from error
        request = check_request(fields, source.categories)
        lacks = checkpoint.lacks(source)
        wanted = request.of if request.do == "compare" else request.do
        if wanted in lacks:
            raise StudioError(lacks[wanted], "unable")
        return replace(request, model=name)

    # -- drawing -----------------------------------------------------------------------------------

    def start(
        self,
        request: Request,
        on_rows: Callable[[list[Row]], None],
        cancelled: Callable[[], bool],
        *,
        told: bool = True,
    ) -> Answer:
        """Draw in other threads.

        Args:
            on_rows: called there with each list of new points.
            cancelled: asked before every step.
            told: whether ``on_end`` is.

        Returns:
            A future of the drawings as JSON; its errors are ``StudioError``.

        Raises:
            StudioError: code "busy", too many people are waiting; "stopping", the studio is closed.
        """
        on_end = self.on_end if told else _untold
        began, first = time.perf_counter(), None
        with self._lock:
            full = self._reading >= self._most
            self._reading += not full
            self.in_flight += not full
        if full:
            on_end(request.do, "busy", 0.0, None)
            raise StudioError(BUSY, "busy")
        answer: Answer = Future()
        drawings: list[list[Any]] = [[] for _ in range(request.results)] if request.draws else []

        def take(rows: list[StreamRow]) -> None:
            nonlocal first
            if first is None:
                first = time.perf_counter() - began
            rounded = [(int(k), round(float(x), 1), round(float(y), 1), int(pen)) for k, x, y, pen in rows]
            for k, x, y, pen in rounded:
                if pen == 0:
                    drawings[k].append([[x, y]])
                elif pen == 1:
                    drawings[k][-1].append([x, y])
            on_rows(rounded)

        def finish(error: BaseException | None, found: Any = None) -> None:
            error = error and as_studio_error(error)
            if isinstance(error, StudioError):
                outcome = error.code
            else:
                outcome = "internal" if error else "cancelled" if cancelled() else "done"
            with self._lock:
                self.in_flight -= 1
            on_end(request.do, outcome, time.perf_counter() - began, first)
            if answer.set_running_or_notify_cancel():
                if error is None:
                    answer.set_result(drawings if found is None else found)
                else:
                    answer.set_exception(error)

        def read() -> None:
            """In a reader."""
            try:
                if cancelled():
                    finish(None)
                    return
                network = self.network(request.model)
                if not request.draws:
                    finish(None, _look(network.sketcher, request))
                    return
                options = request.options()
                if network.scheduler is None:
                    for rows in network.sketcher.stream(request.kind, request.start, cancelled=cancelled, **options):
                        take(rows)
                    finish(None)
                    return
                job = network.sketcher.prepare(request.kind, request.start, **options)
                drawn = network.scheduler.submit(job, take, cancelled)
                drawn.add_done_callback(lambda done: finish(done.exception()))
            except Exception as error:  # handed on to whoever waits for the answer
                finish(error)
            finally:
                with self._lock:
                    self._reading -= 1

        try:
            self._threads.submit(read)
        except RuntimeError:  # closed
            with self._lock:
                self._reading -= 1
                self.in_flight -= 1
            on_end(request.do, "stopping", 0.0, None)
            raise StudioError(STOPPING, "stopping") from None
        return answer

    def warm(self) -> None:
        """Do a little of each kind, in a thread of its own, so that the first visitor waits for no compiler."""
        began = time.perf_counter()

        def ask(**fields: Any) -> Any:
            return self.start(self.check(fields), lambda rows: None, lambda: False, told=False).result()

        def draw() -> None:
            try:
                some = ask(do="draw", n=2)[0]
                lacks = checkpoint.lacks(self.sketcher.source)
                for do, n in (("complete", 1), ("complete", MAX_DRAWINGS), ("vary", 1), ("guess", 1), ("inspect", 1)):
                    if do not in lacks:
                        ask(do=do, strokes=some, n=n)
            except StudioError:  # closed, or busy already
                pass
            finally:
                self.ready = True
                log.info("Ready.", extra=logs.fields(seconds=round(time.perf_counter() - began, 2)))

        self.ready = False
        threading.Thread(target=draw, name="warm-up", daemon=True).start()

    @property
    def networks(self) -> dict[str, Network]:
        """The networks in memory, by name."""
        return {self.sketcher.name: self._first} | dict(list(self._others.items()))

    @property
    def waiting(self) -> int:
        """Requests in line, for a reader or for room in a batch."""
        in_batches = sum(network.scheduler.waiting for network in self.networks.values() if network.scheduler)
        return max(0, self._reading - self.readers) + in_batches

    def close(self, *, finish: bool = True) -> None:
        """Take no more requests; what is in flight is answered, or dropped."""
        self.ready = False
        self._threads.shutdown(wait=finish, cancel_futures=not finish)
        for network in (self._first, *self._others.values()):
            network.close(finish=finish)

    # -- named endpoints ---------------------------------------------------------------------------

    def answer(self, **fields: Any) -> Any:
        """Check a request, draw, and return the drawings as JSON: n lists of strokes of [x, y].

        Raises:
            StudioError: one clear sentence.
        """
        return self.start(self.check(fields), lambda rows: None, lambda: False).result()


def _untold(do: str, outcome: str, seconds: float, first: float | None) -> None:
    """Nobody is told of a request's end."""


def _look(sketcher: Sketcher, request: Request) -> Any:
    """What "inspect" and "guess" answer, as JSON."""
    if request.do == "guess":
        return [[name, round(share, 4)] for name, share in guess(sketcher, request.drawing)]
    found = inspect(sketcher, request.drawing, request.category)
    return {
        field.name: getattr(found, field.name).astype(float).round(FIGURES).tolist()
        for field in dataclasses.fields(found)
    } | {"scale_factor": sketcher.scale_factor}


def _describe(folder: Path) -> checkpoint.Described:
    """:func:`checkpoint.describe`, read again only when the file has changed."""
    try:
        changed = (folder / checkpoint.CONFIG_FILE).stat().st_mtime_ns
    except OSError:
        changed = 0
    return _read_description(folder, changed)


@functools.lru_cache(maxsize=64)
def _read_description(folder: Path, changed: int) -> checkpoint.Described:
    return checkpoint.describe(folder)


def _described(source: checkpoint.Checkpoint | checkpoint.Described) -> dict[str, Any]:
    """A network as the page knows it."""
    return {"name": source.name, "categories": source.categories, "lacks": checkpoint.lacks(source)}
