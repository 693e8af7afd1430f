"""Continuous batching: drawings in the making share the network's steps, whoever asked for them.

One thread owns one :class:`sketch_core.engine.SampleBatch`. A request joins it at the next step, whatever the
others are at, and leaves when its drawings have ended or its asker has gone. All in the batch move one step at a
time, so nobody waits for another's end; beyond ``max_rows`` requests wait in line, in order, and beyond
``max_waiting`` they are refused at once with :class:`BusyError`. Drawings are the same as without it.
"""

from __future__ import annotations

import functools
import logging
import operator
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields

import torch

from sketch_core.engine import PEN_END, CpuEngine, Engine
from sketch_core.generate import Job, StreamRow

log = logging.getLogger("sketch_core.scheduler")

MAX_ROWS = 768
"""Rows of the network in one batch: a step of as many takes some 20 ms of one core."""
MAX_WAITING = 64
FLUSH_SECONDS = 0.03
"""Points are handed on this often, the first ones at once: thirty times a second is what an eye can follow."""
SIZES = 11
"""Sizes of steps are counted in so many classes: 1 drawing, 2, up to 4, up to 8, … up to 1,024."""
MOST_WORKERS = 8
"""Of a crew: what they do in Python, some tenth of their time, they do one after the other."""
UNHURRIED = 8
"""Requests up to which that holds; with more, each hears proportionally less often, as telling costs as well."""


class BusyError(RuntimeError):
    """Too many requests are waiting already."""


@dataclass
class Statistics:
    """What the scheduler has done since it started."""

    steps: int = 0
    points: int = 0
    requests: int = 0
    refused: int = 0
    cancelled: int = 0
    busy_seconds: float = 0.0
    """Time spent in steps."""
    sizes: list[int] = field(default_factory=lambda: [0] * SIZES)
    """Steps by how many drawings shared them: class k holds those of up to 2^k (the last, all larger ones too)."""

    def __add__(self, other: Statistics) -> Statistics:
        numbers = [item.name for item in fields(self) if item.name != "sizes"]
        return Statistics(
            sizes=[a + b for a, b in zip(self.sizes, other.sizes, strict=True)],
            **{name: getattr(self, name) + getattr(other, name) for name in numbers},
        )


@dataclass
class _Ticket:
    """One request."""

    job: Job
    on_rows: Callable[[list[StreamRow]], None]
    cancelled: Callable[[], bool]
    future: Future[None] = field(default_factory=Future)
    unfinished: int = 0
    """Its drawings that have not ended, and those that have not been decided upon."""
    numbers: list[int] = field(default_factory=list)
    """Of its drawings in the batch."""
    news: list[StreamRow] = field(default_factory=list)
    flushed: float = 0.0


class Scheduler:
    """Runs :class:`sketch_core.generate.Job` s, many at a time.

    Args:
        engine: the network.
        max_rows: rows of the network in the batch at most (a guided drawing takes two); a larger request runs
            alone.
        max_waiting: requests in line at most.
        threads: CPU threads of the matrix products.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_rows: int = MAX_ROWS,
        max_waiting: int = MAX_WAITING,
        threads: int = 1,
    ) -> None:
        self.engine, self.max_rows, self.max_waiting, self.threads = engine, max_rows, max_waiting, threads
        self.statistics = Statistics()
        self._batch = engine.batch()
        self._waiting: deque[_Ticket] = deque()
        self._running: list[_Ticket] = []
        self._owners: dict[int, tuple[_Ticket, int]] = {}  # number in the batch: request, which of its drawings
        self._decided: deque[tuple[_Ticket, Future[list[StreamRow]]]] = deque()
        # Choosing among candidates reads them again, for milliseconds in which everybody else would stand still.
        self._choosers = ThreadPoolExecutor(1, "chooser", initializer=torch.set_num_threads, initargs=(1,))
        self._changed = threading.Condition()
        self._closed = self._dropping = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    # -- from any thread ---------------------------------------------------------------------------

    def submit(
        self,
        job: Job,
        on_rows: Callable[[list[StreamRow]], None],
        cancelled: Callable[[], bool] = lambda: False,
        *,
        max_waiting: int | None = None,
    ) -> Future[None]:
        """Put a request in line.

        Args:
            job: from :meth:`sketch_core.generate.Sketcher.prepare`.
            on_rows: called in the scheduler's thread with new points, as :meth:`Sketcher.stream` yields them; must
                not block. What it raises ends the request.
            cancelled: asked before every step; once it says yes the request leaves and its future is done.
            max_waiting: requests in line at most, this time.

        Returns:
            A future that is done when all drawings have ended.

        Raises:
            BusyError: too many are waiting, or the scheduler is closed.
        """
        ticket = _Ticket(job, on_rows, cancelled)
        with self._changed:
            if self._closed or len(self._waiting) >= (self.max_waiting if max_waiting is None else max_waiting):
                self.statistics.refused += 1
                raise BusyError("Many people are drawing right now; please try again in a moment.")
            self._waiting.append(ticket)
            self.statistics.requests += 1
            self._changed.notify()
        return ticket.future

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._waiting)

    @property
    def rows(self) -> int:
        """Rows of the network in the batch."""
        return self._batch.cell_rows

    @property
    def load(self) -> int:
        """Rows of the network that are in the batch or wait to be."""
        with self._changed:
            return self.rows + sum(ticket.job.rows for ticket in self._waiting)

    def close(self, *, finish: bool = True, timeout: float = 10.0) -> None:
        """Take no more requests, answer those in flight (or drop them), and stop."""
        with self._changed:
            self._closed, self._dropping = True, not finish
            self._changed.notify()
        self._thread.join(timeout)

    # -- the one thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        torch.set_num_threads(self.threads)  # of this thread's products alone
        while True:
            with self._changed:
                while not self._something_to_do():
                    self._changed.wait()
                if self._dropping:
                    self._drop_all(BusyError("The server is stopping."))
                if self._closed and not self._waiting and not self._running:
                    self._choosers.shutdown(wait=False)
                    return
                self._admit()
            began = time.perf_counter()
            try:
                self._step()
            except Exception as error:  # nobody may be left waiting, whatever it was
                log.exception("A step failed")
                with self._changed:
                    self._drop_all(error)
            self.statistics.busy_seconds += time.perf_counter() - began

    def _something_to_do(self) -> bool:
        over = self._closed and (self._dropping or not self._running)
        return bool(self._waiting or self._batch.cell_rows or self._decided or over)

    def _admit(self) -> None:
        """Let requests join as long as there is room; the lock is held."""
        while self._waiting:
            ticket = self._waiting[0]
            job = ticket.job
            if self._batch.cell_rows and self._batch.cell_rows + job.rows > self.max_rows:
                return
            self._waiting.popleft()
            if ticket.cancelled():
                self._leave(ticket)
                continue
            numbers = self._batch.add(
                job.state,
                job.noise,
                job.temperatures,
                reference=job.reference,
                guidance=job.guidance,
                allow_empty=False,
            )
            ticket.numbers, ticket.unfinished = numbers.tolist(), job.n
            self._owners.update({number: (ticket, k) for k, number in enumerate(ticket.numbers)})
            self._running.append(ticket)

    def _step(self) -> None:
        gone = [ticket for ticket in self._running if ticket.cancelled()]
        if gone:
            self._batch.drop([number for ticket in gone for number in ticket.numbers])
            for ticket in gone:
                self._leave(ticket)
        if self._batch.cell_rows:
            self._move_on()
        while self._decided:
            ticket, choice = self._decided.popleft()
            ticket.unfinished -= 1
            if ticket not in self._running:
                continue
            if error := choice.exception():
                self._batch.drop(ticket.numbers)
                self._leave(ticket, error)
            else:
                ticket.news += choice.result()
        now = time.perf_counter()
        pause = FLUSH_SECONDS * max(1.0, len(self._running) / UNHURRIED)
        for ticket in [*self._running]:
            done = not ticket.unfinished
            if ticket.news and (done or now - ticket.flushed >= pause):
                news, ticket.news, ticket.flushed = ticket.news, [], now
                try:
                    ticket.on_rows(news)
                except Exception as error:  # the asker's own fault, and nobody else's
                    self._batch.drop(ticket.numbers)
                    self._leave(ticket, error)
                    continue
            if done:
                self._leave(ticket)

    def _move_on(self) -> None:
        """One step of the network, and what it gives each request."""
        step = self._batch.step()
        self.statistics.steps += 1
        self.statistics.points += len(step.rows)
        self.statistics.sizes[min(max(len(step.rows) - 1, 0).bit_length(), SIZES - 1)] += 1
        points = zip(step.rows.tolist(), step.offsets.tolist(), step.pens.tolist(), step.gains.tolist(), strict=True)
        for number, (dx, dy), pen, gain in points:
            ticket, k = self._owners[number]
            ticket.news += ticket.job.move(k, dx, dy, pen, gain)
            if pen == PEN_END:
                ticket.unfinished -= 1
            while ticket.job.undecided:
                ticket.unfinished += 1
                choice = self._choosers.submit(self._decide, ticket, ticket.job.undecided.pop())
                choice.add_done_callback(functools.partial(self._on_decided, ticket))

    @staticmethod
    def _decide(ticket: _Ticket, drawing: int) -> list[StreamRow]:
        return [] if ticket.future.done() else ticket.job.decide(drawing)

    def _on_decided(self, ticket: _Ticket, choice: Future[list[StreamRow]]) -> None:
        with self._changed:
            self._decided.append((ticket, choice))
            self._changed.notify()

    def _leave(self, ticket: _Ticket, error: BaseException | None = None) -> None:
        if ticket in self._running:
            self._running.remove(ticket)
        for number in ticket.numbers:
            self._owners.pop(number, None)
        if ticket.unfinished or not ticket.numbers:
            self.statistics.cancelled += 1
        if not ticket.future.set_running_or_notify_cancel():
            return
        if error is None:
            ticket.future.set_result(None)
        else:
            ticket.future.set_exception(error)

    def _drop_all(self, error: BaseException) -> None:
        for ticket in [*self._running, *self._waiting]:
            self._leave(ticket, error)
        self._waiting.clear()
        self._owners.clear()
        self._batch = self.engine.batch()


class Crew:
    """Schedulers that work side by side, each on a core of its own; a request joins the one with the least to do.

    On two cores and with nothing else to do, two of them drew 529 drawings a second for 16 requests at once, one with
    two threads in its products 374, and one with one 276. Threads wait for each other at every step, for 8 ms where
    other work shares their cores; these wait for nobody. One request alone gets one core.

    Args:
        engine: the network.
        workers: how many. By default half the cores (:data:`MOST_WORKERS` at most): in a server, reading starts, the
            page and the wire take the others (with all of these on two cores, a second worker gained nothing). One
            for a network on a GPU.
        max_rows: rows at most in each one's batch.
        max_waiting: requests in line at most, of all together.

    Raises:
        ValueError: fewer than one worker.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        workers: int | None = None,
        max_rows: int = MAX_ROWS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        if workers is None:
            half = max(1, (os.cpu_count() or 1) // 2)
            workers = min(half, MOST_WORKERS) if isinstance(engine, CpuEngine) else 1
        if workers < 1:
            raise ValueError("A crew needs at least one worker.")
        self.max_waiting = max_waiting
        self.workers = [Scheduler(engine, max_rows=max_rows, max_waiting=max_waiting) for _ in range(workers)]
        self._lock = threading.Lock()

    def submit(
        self, job: Job, on_rows: Callable[[list[StreamRow]], None], cancelled: Callable[[], bool] = lambda: False
    ) -> Future[None]:
        """Put a request in line; see :meth:`Scheduler.submit`. Not from within ``on_rows`` or a future's callback.

        Raises:
            BusyError: too many are waiting, or the crew is closed.
        """
        with self._lock:  # two at once would both choose the same
            worker = min(self.workers, key=lambda worker: worker.load)
            # Places in line that other workers' requests have taken are not this one's to give.
            taken = sum(other.waiting for other in self.workers if other is not worker)
            return worker.submit(job, on_rows, cancelled, max_waiting=self.max_waiting - taken)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return sum(worker.waiting for worker in self.workers)

    @property
    def rows(self) -> int:
        """Rows of the network at work."""
        return sum(worker.rows for worker in self.workers)

    @property
    def statistics(self) -> Statistics:
        """What all have done."""
        return functools.reduce(operator.add, (worker.statistics for worker in self.workers))

    def close(self, *, finish: bool = True, timeout: float = 10.0) -> None:
        """Take no more requests, answer those in flight (or drop them), and stop."""
        closing = [
            threading.Thread(target=worker.close, kwargs={"finish": finish, "timeout": timeout})
            for worker in self.workers
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
