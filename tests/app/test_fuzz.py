"""Junk on every way into the server: each message is answered by drawings or one clear sentence, and nothing is told.

A small share of ``python -m benchmarks.fuzz``, whose report is in docs/security.md.
"""

from __future__ import annotations

import asyncio
import json
import random
import urllib.error
import urllib.request
from typing import Any

import pytest
from websockets.sync.client import connect

from benchmarks import fuzz

START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]
FIELDS = [
    "strokes",
    "category",
    "temperature",
    "seed",
    "n",
    "pen_down",
    "guidance",
    "spread",
    "of",
    "temperatures",
    "seeds",
    "drawings",
    "categories",
    "how",
    "steps",
]
JOBS = ("complete", "vary", "draw", "compare", "blend", "inspect", "guess")


def junk(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.randrange(9)
    if kind == 0:
        return dice.choice([None, True, -1, 1e300, 0.5, "", "x" * 40, "<b>${1}</b>", 2**70, float("inf"), float("nan")])
    if kind == 1 and depth < 4:
        return [junk(dice, depth + 1) for _ in range(dice.randrange(5))]
    if kind == 2 and depth < 4:
        return {dice.choice(["a", "points", "strokes"]): junk(dice, depth + 1) for _ in range(dice.randrange(3))}
    if kind == 3:
        points = [
            [dice.choice([0, 1e9, -5, 512, 3.3, 1e-320]), dice.random() * 600] for _ in range(dice.randrange(1, 6))
        ]
        return [points] * dice.randrange(1, 4)
    if kind == 4:
        return [START] * dice.randrange(6)
    return dice.choice(
        [0, 1, 3, 9, 0.4, "cat", "strip", "grid", "sum", "vary", [0.1, 0.5], [[[5, 5]]], [["cat"]], ["cat"] * 2]
    )


@pytest.mark.parametrize("seed", range(3))
def test_every_message_is_answered(server, seed):
    dice = random.Random(seed)
    answers = {"done": 0, "error": 0}
    with connect(server.replace("http", "ws") + "/live", open_timeout=10) as socket:
        for number in range(200):
            message = {"id": number, "do": dice.choice(JOBS), "strokes": START, "n": 1, "seeds": 1, "steps": 2}
            message |= {"temperatures": [0.4], "drawings": [START, START]}
            message |= {name: junk(dice) for name in dice.sample(FIELDS, dice.randrange(4))}
            socket.send(json.dumps(message))
            while (answer := json.loads(socket.recv(timeout=30)))["type"] == "points":
                pass
            answers[answer["type"]] += 1
            if answer["type"] == "error":
                assert answer["code"] in ("invalid", "too_large"), (message, answer)
                assert 5 < len(answer["message"]) < 250 and "Traceback" not in answer["message"]
    assert min(answers.values()) > 20


def test_a_real_server_under_fire(tmp_path):
    """Six hundred malformed inputs on all ways, beside forty connections that stall."""
    with fuzz.served("tiny", fuzz.secret_folder(tmp_path)) as server:
        report = asyncio.run(fuzz.attack(server, 600, seed=1, tell=lambda line: None))
    assert not fuzz.judged(report, warm=0), "\n".join(fuzz.judged(report, warm=0)[:20])
    assert report.cases == 600 and set(report.outcomes) == set(fuzz.WAYS)
    # It reached what it was to reach: drawings were drawn, calls answered, frames refused, files looked for.
    assert report.outcomes["live"]["done"] > 4 and report.outcomes["live"]["error invalid"] > 50
    assert report.outcomes["api"]["200"] > 5 and report.outcomes["path"]["404"] > 20
    assert report.outcomes["frames"]["closed 1002"] > 3 and report.outcomes["raw"]["400"] > 5


def test_what_is_found_counts():
    """The checks themselves: a leak, a missing policy, a server error and growth are faults."""
    report = fuzz.Report()
    attack = fuzz.Attack("127.0.0.1:1", report)
    case = fuzz.Case("path", ("GET", "/x"))
    safe = b"HTTP/1.1 404 Not Found\r\ncontent-security-policy: a\r\n\r\n"
    assert attack.look(case, safe + b"Not Found", b"GET /x") == 404 and not report.faults
    for answer in (
        safe + b"Traceback (most recent call last)",
        safe + b"root:x:0:0:root",
        safe.replace(b"404", b"500"),
    ):
        attack.look(case, answer, b"GET /x")
    attack.look(case, b"HTTP/1.1 200 OK\r\n\r\n", b"GET /x")
    assert len(report.faults) == 4, report.faults
    asked = f"GET {fuzz.ROOT}/x"
    assert (
        fuzz.leak(f"{fuzz.ROOT}/x is not here", asked) is None and fuzz.leak(f"{fuzz.ROOT}/app.py", "GET /") is not None
    )
    report.batches = [{"rss_mb": 100.0 + 60 * (k == 3), "files": 10, "threads": 5} for k in range(4)]
    assert fuzz.judged(report, warm=1)[-1] == "rss_mb went from 100 to 160."


def test_a_flood_is_slowed_down(tmp_path):
    """With the limit that is on by default (here a smaller one), one address is told to wait; pages still come."""
    with fuzz.served("tiny", fuzz.secret_folder(tmp_path), DUET_REQUESTS_PER_MINUTE="240") as server:
        statuses, told = [], ""
        for _ in range(100):
            asked = urllib.request.Request(
                f"http://{server.host}/gradio_api/call/models", b'{"data": []}', {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(asked, timeout=20) as answer:
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
                told = error.read().decode()
                assert int(error.headers["Retry-After"]) >= 1 and error.headers["Content-Security-Policy"]
        assert set(statuses) == {200, 429} and 50 <= statuses.count(200) < 95 and "slow down" in told
        with connect(f"ws://{server.host}/live") as link:
            codes = []
            for number in range(10):
                link.send(json.dumps({"id": number, "do": "guess", "strokes": START}))
                answer = json.loads(link.recv(timeout=20))
                codes.append(answer.get("code", answer["type"]))
        assert "slow_down" in codes and set(codes) <= {"slow_down", "done"}, codes
        for path in ("/", "/health", "/models"):
            with urllib.request.urlopen(f"http://{server.host}{path}", timeout=20) as answer:
                assert answer.status == 200
