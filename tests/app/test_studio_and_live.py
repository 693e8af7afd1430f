"""Requests are checked, answers are the Sketcher's, and the server survives what is thrown at it."""

from __future__ import annotations

import http.client
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from websockets.sync.client import connect

from app import text
from app.studio import Studio, StudioError, check_request

START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]
GOOD = {"id": 1, "do": "complete", "strokes": START, "temperature": 0.4, "seed": 3, "n": 3, "category": "cat"}
WRONG = [
    {"do": "erase"}, {"category": "unicorn"}, {"category": 3}, {"temperature": 0}, {"temperature": True},
    {"temperature": 99}, {"temperature": "0.4"}, {"seed": -1}, {"seed": 1.5}, {"seed": 2**40}, {"n": 0}, {"n": 10},
    {"n": True}, {"guidance": -1}, {"guidance": "4"}, {"guidance": 1e300}, {"pen_down": 1},
    {"spread": -1}, {"spread": float("nan")}, {"do": ["complete"]}, {"do": "compare"},
    {"do": "compare", "temperatures": [0.4, "x"]}, {"do": "compare", "temperatures": [0.4] * 10, "seeds": 7},
    {"do": "compare", "temperatures": [0.4], "of": "erase"}, {"do": "compare", "temperatures": {"a": 1}},
    {"do": "blend"}, {"do": "blend", "drawings": [START]}, {"do": "blend", "drawings": [START] * 2, "how": "mash"},
    {"do": "blend", "drawings": [START] * 2, "how": ["strip"]},
    {"do": "blend", "drawings": [START] * 2, "categories": 3},
    {"do": "blend", "drawings": [START] * 2, "steps": 99},
    {"do": "blend", "drawings": [START] * 2, "categories": ["cat", "unicorn"]}, {"do": "guess", "strokes": []},
    {"do": "inspect", "strokes": [[[1]]]}, {"strokes": []}, {"strokes": None},
    {"strokes": [[[1]]]}, {"strokes": [[[1, "2"]]]},
    {"strokes": [[[1e300, 0]]]}, {"strokes": [[[0, 0]] * 2001]}, {"strokes": [[]] * 500}, {"strokes": {"a": 1}},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_fields_are_one_sentence(wrong):
    with pytest.raises(StudioError) as error:
        check_request(GOOD | wrong, ["cat"])
    assert 10 < len(str(error.value)) < 200


@pytest.mark.parametrize("continuous", [True, False])
def test_answers_are_the_sketchers(tiny_sketcher, continuous):
    studio = Studio(tiny_sketcher, continuous=continuous)
    drawings = [np.array(stroke, dtype=float) for stroke in START]
    expected = tiny_sketcher.complete(drawings, "cat", n=3, seed=3, canvas=512.0)
    answer = studio.answer(**{k: v for k, v in GOOD.items() if k != "id"})
    assert len(answer) == 3
    for got, drawing in zip(answer, expected, strict=True):
        assert [len(s) for s in got] == [len(s) for s in drawing]
        assert all(np.allclose(a, b, atol=0.051) for a, b in zip(got, drawing, strict=True))


def test_busy_is_said(tiny_sketcher):
    studio = Studio(tiny_sketcher, readers=1, waiting=0)
    request = check_request(GOOD, ["cat"])
    answer = studio.start(request, lambda rows: None, lambda: False)  # no room in line: refused by the scheduler
    with pytest.raises(StudioError) as error:
        answer.result(10)
    assert error.value.code == "busy"
    studio._reading = studio._most
    with pytest.raises(StudioError) as error:
        studio.start(request, lambda rows: None, lambda: False)
    assert error.value.code == "busy"


def live(server):
    return connect(server.replace("http", "ws") + "/live", open_timeout=10)


def hear(socket):
    return json.loads(socket.recv(timeout=20))


def test_points_stream_and_add_up_to_the_drawings(server):
    with live(server) as socket:
        socket.send(json.dumps(GOOD))
        drawn = [[] for _ in range(3)]
        while (message := hear(socket))["type"] == "points":
            for k, x, y, pen in message["rows"]:
                if pen == 0:
                    drawn[k].append([[x, y]])
                elif pen == 1:
                    drawn[k][-1].append([x, y])
        assert message["type"] == "done" and message["drawings"] == drawn


def test_a_new_request_takes_the_place_of_the_old(server):
    with live(server) as socket:
        for number in range(1, 8):
            socket.send(json.dumps(GOOD | {"id": number}))
        finished = set()
        while 7 not in finished:
            message = hear(socket)
            assert message["type"] != "error"
            if message["type"] == "done":
                finished.add(message["id"])


def test_nonsense_gets_clean_errors_and_the_connection_lives(server):
    nonsense = ["", "hello", "[]", "3", "null", '{"id": "x"}', '{"id": 1}', '{"id": NaN}', "[" * 20_000, b"\x00\xff"]
    with live(server) as socket:
        for message in nonsense:
            socket.send(message)
            answer = hear(socket)
            assert answer["type"] == "error" and "Traceback" not in answer["message"]
        for wrong in WRONG:
            socket.send(json.dumps(GOOD | wrong))
            assert hear(socket)["type"] == "error"
        socket.send('{"cancel": 99}')
        socket.send(json.dumps(GOOD))
        assert hear(socket)["type"] == "points"


def test_named_endpoints(server, tiny_sketcher):
    client = Client(server, verbose=False)
    assert client.predict(api_name="/categories") == tiny_sketcher.categories
    for name, arguments in (
        ("/complete", (START, "cat", 0.4, 2, 0, False)),
        ("/vary", (START, "", 0.4, 2, 0)),
        ("/draw", ("dog", 0.4, 2, 0)),
    ):
        drawings = client.predict(*arguments, api_name=name)
        assert len(drawings) == 2 and len(drawings[0][0][0]) == 2
    compared = client.predict(START, "cat", "complete", [0.2, 0.9], 2, 0, api_name="/compare")
    assert len(compared) == 4
    assert len(client.predict([START, START], None, "strip", 3, 0.2, 0, api_name="/blend")) == 3
    assert len(client.predict(START, "cat", api_name="/inspect")["l_s"]) > 1
    assert client.predict(START, api_name="/guess")[0][0] in tiny_sketcher.categories
    with pytest.raises(AppError, match="unicorn"):
        client.predict("unicorn", 0.4, 2, 0, api_name="/draw")


def test_large_bodies_are_refused(server):
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/gradio_api/call/draw")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    # By its announced length, before the body: sending it all would race with the server's hanging up.
    assert connection.getresponse().status == 413
    connection.close()


def test_every_word_is_there_in_both_languages():
    assert set(text.WORDS[text.ENGLISH]) == set(text.WORDS[text.CHINESE])
    source = (Path(text.__file__).parent / "canvas" / "canvas.js").read_text(encoding="utf-8")
    used = re.findall(r'(?:say|tell|announce)\("(\w+)"', source)
    assert len(used) > 10 and set(used) <= set(text.WORDS[text.ENGLISH])


def test_other_jobs_answer_over_the_live_route(server, tiny_sketcher):
    with live(server) as socket:

        def ask(**fields):
            socket.send(json.dumps({"id": 5} | fields))
            while (message := hear(socket))["type"] == "points":
                pass
            assert message["type"] == "done", message
            return message

        heats, asked = [0.2, 0.4, 0.9], {"strokes": START, "category": "cat"}
        compared = ask(do="compare", temperatures=heats, seeds=2, seed=3, **asked)["drawings"]
        assert len(compared) == 6
        for k, (heat, seed) in enumerate([(heat, seed) for heat in heats for seed in (3, 4)]):
            same = ask(do="complete", temperature=heat, seed=seed, n=1, **asked)["drawings"]
            assert same == [compared[k]], "a compared picture is the first ending of its temperature and seed"
        pair = [START, [[[0, 0], [90, 10], [50, 80]]]]
        strip = ask(do="blend", drawings=pair, categories=["cat", None], steps=5)["drawings"]
        assert len(strip) == 5
        flat = [point for drawing in strip for stroke in drawing for point in stroke]
        assert all(-0.1 <= value <= 512.1 for point in flat for value in point)
        assert len(ask(do="blend", how="grid", drawings=pair * 2, steps=3)["drawings"]) == 9
        assert len(ask(do="blend", how="sum", drawings=[*pair, START])["drawings"]) == 1
        found = ask(do="guess", **asked)["found"]
        assert {name for name, _ in found} <= set(tiny_sketcher.categories)
        assert abs(sum(share for _, share in found) - 1) < 1e-2 or len(tiny_sketcher.categories) > 5
        looked = ask(do="inspect", **asked)["found"]
        n = len(looked["l_s"])
        assert len(looked["stroke5"]) == len(looked["pen"]) == len(looked["pi"]) == n + 1
        assert looked["pen"][0] == START[0][0] and np.allclose(looked["pen"][-1], START[0][-1], atol=1.0)


def get(server, path):
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_health_and_safety_headers(server, tiny_sketcher):
    for _ in range(100):
        answer, body = get(server, "/health")
        if answer.status == 200:  # it has warmed up
            break
        time.sleep(0.2)
    assert json.loads(body) == {"alive": True, "ready": True, "model": tiny_sketcher.name, "version": "0.1.0"}
    answer, body = get(server, "/")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert body.index(b"doodle-duet-language") < body.index(b"gradio_config"), "before Gradio's own scripts"
    assert int(answer.headers["content-length"]) == len(body)
