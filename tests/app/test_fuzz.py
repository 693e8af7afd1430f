"""Random messages to the live route: each is answered, by drawings or by one clear sentence, on one connection."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from websockets.sync.client import connect

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
