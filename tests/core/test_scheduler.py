"""Many requests in one batch: the same drawings, fair, cancelled, refused, never stuck."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from sketch_core.scheduler import BusyError, Crew, Scheduler, Statistics
from sketch_core.torch_engine import TorchEngine


@pytest.fixture(params=["cpu", "torch", "crew"])
def scheduler(request, tiny_sketcher, monkeypatch):
    """Each way drawings can be scheduled."""
    if request.param == "torch":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        engine = TorchEngine(tiny_sketcher.source.architecture, tiny_sketcher.source.weights, device)
        monkeypatch.setattr(tiny_sketcher, "engine", engine)
    crew = request.param == "crew"
    scheduler = Crew(tiny_sketcher.engine, workers=2) if crew else Scheduler(tiny_sketcher.engine, threads=1)
    yield scheduler
    scheduler.close(finish=False)


def workers_of(scheduler):
    return scheduler.workers if isinstance(scheduler, Crew) else [scheduler]


def run(scheduler, sketcher, *arguments, **options):
    rows = []
    future = scheduler.submit(sketcher.prepare(*arguments, **options), rows.extend)
    return rows, future


def test_drawings_are_the_same_as_alone(scheduler, tiny_sketcher, half_cat):
    requests = [
        ("complete", half_cat, {"category": "cat", "n": 3, "seed": 1}),
        ("vary", half_cat, {"category": "dog", "n": 2, "seed": 2}),
        ("draw", None, {"category": None, "n": 4, "seed": 3}),
        ("complete", half_cat, {"category": "cat", "n": 9, "seed": 4, "guidance": 0, "temperature": 0.9}),
    ]
    running = [run(scheduler, tiny_sketcher, kind, drawing, **options) for kind, drawing, options in requests]
    for (rows, future), (kind, drawing, options) in zip(running, requests, strict=True):
        future.result(20)
        expected = [row for rows in tiny_sketcher.stream(kind, drawing, **options) for row in rows]
        assert len(rows) == len(expected)
        for k in range(options["n"]):
            mine, alone = ([row for row in found if row.k == k] for found in (rows, expected))
            assert [row.pen for row in mine] == [row.pen for row in alone]
            assert np.allclose([row[1:3] for row in mine], [row[1:3] for row in alone], atol=1e-2)
    assert scheduler.rows == 0 and not any(worker._owners for worker in workers_of(scheduler))


def test_a_late_request_does_not_wait_for_the_end_of_others(tiny_sketcher, half_cat):
    """One step at a time, so the second's first point comes while the first is at it."""
    scheduler = Scheduler(tiny_sketcher.engine, threads=1)
    begun, joined = threading.Event(), threading.Event()
    order = []

    def first(rows):
        order.append("first")
        begun.set()
        joined.wait(20)  # the scheduler's thread stands still until the second is in line

    slow = scheduler.submit(tiny_sketcher.prepare("complete", half_cat, n=40, seed=1), first)
    assert begun.wait(20)
    quick = scheduler.submit(
        tiny_sketcher.prepare("complete", half_cat, n=1, seed=1), lambda rows: order.append("second")
    )
    joined.set()
    quick.result(20)
    slow.result(20)
    assert "first" in order[order.index("second") :]
    scheduler.close()


def test_cancelled_requests_leave_at_once(scheduler, tiny_sketcher):
    gone = threading.Event()
    got = []

    def take(rows):
        got.append(len(rows))
        gone.set()

    future = scheduler.submit(
        tiny_sketcher.prepare("complete", [np.array([[0, 0], [90, 90.0]])], n=200), take, gone.is_set
    )
    future.result(20)
    assert len(got) == 1 and scheduler.rows == 0
    assert scheduler.statistics.cancelled == 1


def test_room_is_kept_and_the_line_is_short(tiny_sketcher):
    scheduler = Scheduler(tiny_sketcher.engine, threads=1, max_rows=10, max_waiting=2)
    inside, release = threading.Event(), threading.Event()

    def hold(rows):
        inside.set()
        release.wait(20)

    job = [tiny_sketcher.prepare("draw", n=8, seed=seed) for seed in range(4)]
    futures = [scheduler.submit(job[0], hold)]
    inside.wait(20)
    futures += [scheduler.submit(item, lambda rows: None) for item in job[1:3]]
    with pytest.raises(BusyError):
        scheduler.submit(job[3], lambda rows: None)
    assert scheduler.waiting == 2 and scheduler.rows <= 10
    assert scheduler.statistics.refused == 1
    release.set()
    for future in futures:
        future.result(20)
    scheduler.close()


def test_one_askers_fault_is_not_anothers(scheduler, tiny_sketcher):
    def fail(rows):
        raise OSError("gone")

    rows, good = run(scheduler, tiny_sketcher, "draw", category="cat", n=3, seed=5)
    bad = scheduler.submit(tiny_sketcher.prepare("draw", n=3), fail)
    with pytest.raises(OSError, match="gone"):
        bad.result(20)
    good.result(20)
    assert sum(row.pen == 2 for row in rows) == 3


def test_choosing_holds_nobody_up_and_its_fault_is_one_askers(tiny_sketcher, half_cat, monkeypatch):
    scheduler = Scheduler(tiny_sketcher.engine, threads=1)
    asked, answer = threading.Event(), threading.Event()

    def think(mu, index, candidates):
        asked.set()
        assert answer.wait(20)
        if index == tiny_sketcher.category_index("dog"):
            raise OSError("no choice")
        return 2

    monkeypatch.setattr(tiny_sketcher, "likest", think)
    rows, varied = run(scheduler, tiny_sketcher, "vary", half_cat, category="cat", n=2, seed=1)
    _, spoiled = run(scheduler, tiny_sketcher, "vary", half_cat, category="dog", n=1, seed=1)
    assert asked.wait(20)
    _, other = run(scheduler, tiny_sketcher, "draw", n=2)
    other.result(20)
    assert not varied.done() and not rows
    answer.set()
    varied.result(20)
    with pytest.raises(OSError, match="no choice"):
        spoiled.result(20)
    alone = [row for rows in tiny_sketcher.stream("vary", half_cat, category="cat", n=2, seed=1) for row in rows]
    assert len(rows) == len(alone) and {row.k for row in rows} == {0, 1}
    scheduler.close()
    assert not scheduler._thread.is_alive()


def test_who_leaves_while_a_choice_is_made_is_forgotten(tiny_sketcher, half_cat, monkeypatch):
    scheduler = Scheduler(tiny_sketcher.engine, threads=1)
    asked, answer, gone = threading.Event(), threading.Event(), threading.Event()

    def think(mu, index, candidates):
        asked.set()
        assert answer.wait(20)
        return 0

    monkeypatch.setattr(tiny_sketcher, "likest", think)
    job = tiny_sketcher.prepare("vary", half_cat, category="cat", n=1, seed=1)
    rows = []
    future = scheduler.submit(job, rows.extend, gone.is_set)
    assert asked.wait(20)
    gone.set()
    _, other = run(scheduler, tiny_sketcher, "draw", n=1)  # a step, at which it is seen
    other.result(20)
    future.result(20)
    answer.set()
    _, last = run(scheduler, tiny_sketcher, "draw", n=1)
    last.result(20)
    assert not rows and scheduler.rows == 0 and not scheduler._running
    scheduler.close()
    assert not scheduler._thread.is_alive()


def test_a_failing_step_leaves_nobody_waiting(scheduler, tiny_sketcher, monkeypatch):
    def broken(self):
        raise FloatingPointError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(type(workers_of(scheduler)[0]._batch), "step", broken)
        _, future = run(scheduler, tiny_sketcher, "draw", n=3)
        with pytest.raises(FloatingPointError):
            future.result(20)
    rows, future = run(scheduler, tiny_sketcher, "draw", n=3)
    future.result(20)
    assert rows


def test_closing_answers_what_is_in_flight(tiny_sketcher):
    scheduler = Scheduler(tiny_sketcher.engine, threads=1)
    rows, future = run(scheduler, tiny_sketcher, "draw", n=5)
    scheduler.close()
    assert future.done() and sum(row.pen == 2 for row in rows) == 5
    with pytest.raises(BusyError):
        run(scheduler, tiny_sketcher, "draw", n=5)


def test_a_crew_shares_its_work_out(tiny_sketcher):
    """Two requests that stand still: the third joins the worker with the fewest rows, for a fourth there is no room."""
    crew = Crew(tiny_sketcher.engine, workers=2, max_waiting=1)
    go_on = threading.Event()
    begun = [threading.Event() for _ in range(3)]

    def held(number):
        def on_rows(rows):
            begun[number].set()
            go_on.wait(20)

        return on_rows

    futures = []
    for number, n in enumerate((40, 1)):
        futures.append(crew.submit(tiny_sketcher.prepare("draw", None, n=n, seed=number), held(number)))
        assert begun[number].wait(20)
    assert [worker.statistics.requests for worker in crew.workers] == [1, 1]
    futures.append(crew.submit(tiny_sketcher.prepare("draw", None, n=1, seed=2), held(2)))
    assert [worker.waiting for worker in crew.workers] == [0, 1] and crew.waiting == 1
    with pytest.raises(BusyError):
        crew.submit(tiny_sketcher.prepare("draw", None, n=30, seed=3), held(2))
    go_on.set()
    for future in futures:
        future.result(20)
    crew.close()
    assert crew.statistics.requests == 3 and crew.statistics.refused == 1 and crew.statistics.points > 0
    assert crew.statistics.steps == sum(worker.statistics.steps for worker in crew.workers)
    with pytest.raises(BusyError):
        crew.submit(tiny_sketcher.prepare("draw", None, n=1), lambda rows: None)


def test_a_crew_has_a_worker_for_two_cores_and_one_for_a_gpu(tiny_sketcher, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    source = tiny_sketcher.source
    for engine, workers in (
        (tiny_sketcher.engine, 3),
        (TorchEngine(source.architecture, source.weights, torch.device("cpu")), 1),
    ):
        crew = Crew(engine, max_waiting=4)
        assert len(crew.workers) == workers
        crew.close()


def test_statistics_add_up():
    one, other = Statistics(steps=1, busy_seconds=0.5, sizes=[1] * 11), Statistics(steps=2, points=3, sizes=[2] * 11)
    assert one + other == Statistics(steps=3, points=3, busy_seconds=0.5, sizes=[3] * 11)
