"""The two routes of the share panel: what they answer, and that they cannot be made to work hard."""

from __future__ import annotations

import io
import json
import threading

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app import sharing

PICTURE = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M10 10L90 90M5 5h3"/></svg>'


@pytest.fixture
def client():
    with TestClient(Starlette(routes=sharing.share_routes())) as client:
        yield client


def test_a_picture_becomes_strokes(client):
    answer = client.post("/share/svg", content=PICTURE)
    assert answer.status_code == 200
    assert answer.json() == {"strokes": [[[10.0, 10.0], [90.0, 90.0]], [[5.0, 5.0], [8.0, 5.0]]]}
    assert client.get("/share/svg").status_code == 405


def test_what_cannot_be_read_gets_a_code_and_a_sentence(client):
    for content, code in (("<svg", "broken"), ("<svg/>", "empty"), (b"\xff\x00", "broken"), ("", "broken")):
        answer = client.post("/share/svg", content=content)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert answer.json()["message"].endswith(".")
    answer = client.post("/share/svg", content=PICTURE + " " * sharing.MAX_BYTES)
    assert (answer.status_code, answer.json()["code"]) == (413, "large")


def test_a_drawing_becomes_an_animation(client):
    body = {"strokes": [[[10, 10], [300, 400]], [[5, 5]]], "by": ["hand", "net"]}
    answer = client.post("/share/gif", json=body)
    assert answer.headers["content-type"] == "image/gif"
    assert Image.open(io.BytesIO(answer.content)).size == (512, 512)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps({"strokes": [[[1, 2]]]}),
        json.dumps({"strokes": [[[1, 2]]], "by": ["hand", "hand"]}),
        json.dumps({"strokes": [[[1, 2]], []], "by": ["hand", "net"]}),
        '{"strokes": [[[1, NaN]]], "by": ["hand"]}',
        '{"strokes": [[[1, 1e999]]], "by": ["hand"]}',
        json.dumps({"strokes": [], "by": []}),
        json.dumps({"strokes": [[[0, 0]]] * 401, "by": ["hand"] * 401}),
        json.dumps({"strokes": [[[0, 0]] * 2001], "by": ["hand"]}),
    ],
)
def test_what_is_no_drawing_is_refused(client, body):
    answer = client.post("/share/gif", content=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "drawing")


def test_a_far_away_drawing_is_shown_whole(client):
    answer = client.post("/share/gif", json={"strokes": [[[-1e6, 0], [1e6, 5]]], "by": ["net"]})
    assert answer.status_code == 200


def test_one_works_a_few_wait_and_the_others_are_told(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def slow(body: bytes):
        begun.set()
        assert go_on.wait(20)
        return sharing.JSONResponse({})

    monkeypatch.setattr(sharing, "read_svg", slow)
    with TestClient(Starlette(routes=sharing.share_routes())) as client:
        answers: list[int] = []
        ask = lambda: answers.append(client.post("/share/svg", content=PICTURE).status_code)  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(sharing.WAITING + 6)]
        for thread in threads:
            thread.start()
        assert begun.wait(20)
        for _ in range(200):
            if len(answers) == 5:
                break
            threading.Event().wait(0.05)
        assert answers == [503] * 5
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert sorted(answers) == [200] * (sharing.WAITING + 1) + [503] * 5


def test_a_fault_of_ours_is_a_sentence(monkeypatch, caplog):
    def broken(body: bytes):
        raise ZeroDivisionError

    monkeypatch.setattr(sharing, "make_gif", broken)
    with TestClient(Starlette(routes=sharing.share_routes())) as client:
        answer = client.post("/share/gif", content="{}")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "ZeroDivisionError" in caplog.text
