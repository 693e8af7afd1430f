"""A stranger at the door: what every answer carries, what no answer tells, and what nobody can hold open or fill up."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app import connections
from app.guard import SAFETY, Guard, host_of, is_foreign, is_used
from app.live import MAX_UNHEARD
from app.server import SESSIONS, launch
from app.settings import Settings
from app.studio import Studio
from benchmarks import fuzz

START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory) -> Iterator[fuzz.Served]:
    """A real server process among hostile checkpoints."""
    place = fuzz.secret_folder(tmp_path_factory.mktemp("hostile"))
    with fuzz.served("tiny", place) as server:
        yield server


def ask(host: str, request: bytes, seconds: float = 20.0) -> tuple[int, list[tuple[str, str]], str]:
    """Status, headers and body of the answer to raw bytes."""
    answer = asyncio.run(fuzz.exchange(host, request, seconds, fuzz.whole))
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    return int(first.split()[1]), headers, body


def get(host: str, path: str, **headers: str) -> tuple[int, list[tuple[str, str]], str]:
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    named = "" if "Host" in headers else f"Host: {host}\r\n"
    return ask(host, f"GET {path} HTTP/1.1\r\n{named}{more}Connection: close\r\n\r\n".encode())


# ---------------------------------------------------------------------------------------------------
# Headers, other pages, other names

ANSWERS = {
    "the page": ("GET", "/", "", b"", 200),
    "its head alone": ("HEAD", "/", "", b"", 200),
    "health": ("GET", "/health", "", b"", 200),
    "networks": ("GET", "/models", "", b"", 200),
    "a card": ("GET", "/models/tiny", "", b"", 200),
    "style": ("GET", "/theme.css", "", b"", 200),
    "Gradio's settings": ("GET", "/config", "", b"", 200),
    "an icon": ("GET", "/favicon.ico", "", b"", 200),
    "another address": ("GET", "/health/", "", b"", 307),
    "nothing": ("GET", "/nothing", "", b"", 404),
    "a shut door": ("GET", "/gradio_api/file=README.md", "", b"", 404),
    "a file that is none": ("GET", "/static/../../etc/passwd", "", b"", 403),
    "another method": ("DELETE", "/health", "", b"", 405),
    "no JSON": ("POST", "/gradio_api/call/guess", "application/json", b"{", 422),
    "no endpoint": ("POST", "/gradio_api/call/nothing", "application/json", b'{"data": []}', 404),
    "no inputs": ("POST", "/gradio_api/run/guess", "application/json", b'{"data": []}', 422),
    "too much": ("POST", "/gradio_api/call/guess", "application/json", b" " * 300_000, 413),
    "too long": ("GET", "/" + "a" * 5_000, "", b"", 414),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_every_answer_carries_the_policy(attacked, what):
    method, path, kind, body, expected = ANSWERS[what]
    status, headers, text = ask(attacked.host, fuzz.http(attacked.host, method, path, kind, body))
    assert status == expected, text[:200]
    for name, value in SAFETY:
        assert (name.decode(), value.decode()) in headers, f"{name.decode()} is missing"
    assert not [header for header in headers if header[0] in ("set-cookie", "access-control-allow-origin")]
    assert fuzz.leak(text, path) is None


def test_the_policy_allows_no_frame_object_or_other_host(attacked):
    policies = [value for name, value in get(attacked.host, "/")[1] if name == "content-security-policy"]
    assert len(policies) == 1
    rules = dict(rule.strip().partition(" ")[::2] for rule in policies[0].split(";"))
    assert rules["default-src"] == rules["connect-src"] == rules["base-uri"] == rules["form-action"] == "'self'"
    assert rules["object-src"] == "'none'" and "*" not in rules["script-src"] and "http" not in rules["script-src"]
    assert rules["frame-ancestors"] == "'self' https://huggingface.co https://*.hf.space"


def test_a_card_runs_no_script_at_all(attacked):
    _, headers, body = get(attacked.host, "/models/tiny")
    assert "default-src 'none'" in dict(headers[::-1])["content-security-policy"]
    assert "<script" not in body and 'href="javascript' not in body and "&lt;script&gt;" in body


EVIL = [
    "https://evil.example",
    "null",
    "http://127.0.0.1.evil.example",
    "http://[",
    "file://",
    "",
    "http://localhost@evil.example",
]


@pytest.mark.parametrize("origin", EVIL)
def test_other_pages_are_refused(attacked, origin):
    status, headers, _ = get(attacked.host, "/health", Origin=origin)
    assert status == 200 and not [name for name, _ in headers if name.startswith("access-control-")]
    body = b'{"data": []}'
    head = (
        f"POST /gradio_api/call/models HTTP/1.1\r\nHost: {attacked.host}\r\nOrigin: {origin}\r\nConnection: close\r\n"
    )
    head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    assert ask(attacked.host, head.encode() + body)[0] == 403
    preflight = f"OPTIONS /gradio_api/call/models HTTP/1.1\r\nHost: {attacked.host}\r\nOrigin: {origin}\r\n"
    preflight += "Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n"
    assert not [name for name, _ in ask(attacked.host, preflight.encode())[1] if name.startswith("access-control-")]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{attacked.host}/live", additional_headers={"Origin": origin})
    assert refused.value.response.status_code == 403
    assert refused.value.response.headers["content-security-policy"]


def test_the_page_itself_and_programs_are_not(attacked):
    for headers in ({}, {"Origin": f"http://{attacked.host}"}, {"Origin": f"http://localhost:{attacked.port}"}):
        with connect(f"ws://{attacked.host}/live", additional_headers=headers) as link:
            link.send(json.dumps({"id": 1, "do": "guess", "strokes": START}))
            assert json.loads(link.recv(timeout=20))["type"] == "done"


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example:80", "[", "", "192.0.2.1", "evil.example:{port}"]
)
def test_a_name_that_was_made_to_lead_here_is_refused(attacked, name):
    name = name.format(port=attacked.port)
    for path in ("/", "/health", "/models", "/gradio_api/info"):
        assert get(attacked.host, path, Host=name)[0] in (400, 421)
    hello = (fuzz.HELLO + fuzz.KEY + b"\r\n").replace(b"{host}", name.encode())
    assert ask(attacked.host, hello)[0] in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "localhost:{port}", "LOCALHOST"])
def test_the_machines_own_names_are_not(attacked, name):
    assert get(attacked.host, "/health", Host=name.format(port=attacked.port))[0] == 200


def scope(path: str = "/", method: str = "GET", **headers: str) -> dict:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": given}


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({"host": "draw.example"}, False),
        ({"host": "draw.example", "origin": "https://draw.example"}, False),
        ({"host": "draw.example:8443", "origin": "https://draw.example"}, False),
        ({"host": "127.0.0.1:7860", "origin": "https://draw.example"}, True),
        ({"host": "127.0.0.1:7860", "origin": "https://draw.example", "x_forwarded_host": "draw.example, a"}, False),
        ({"host": "draw.example", "origin": "https://evil.example"}, True),
        ({"host": "draw.example", "origin": "http://127.0.0.1"}, True),
        ({"origin": "http://127.0.0.1"}, True),
    ],
)
def test_who_is_foreign_behind_a_proxy(headers, foreign):
    assert is_foreign(scope(**headers)) is foreign


def test_a_public_server_answers_to_any_name():
    nothing = Guard(lambda *_: None)
    assert nothing.refusal(scope(host="anything.example"), False) is None
    assert Guard(lambda *_: None, local_only=True).refusal(scope(host="anything.example"), False) is not None
    below = Guard(lambda *_: None, "https://example.org/draw/")
    assert below.refusal(scope("/draw/gradio_api/upload"), False) == (404, "Not Found")
    assert below.refusal(scope("/draw/gradio_api/info"), False) is None
    assert (
        host_of("[::1]:80") == "::1" and host_of("http://a:1/b") == "a" and host_of("[") is None and host_of("") is None
    )


# ---------------------------------------------------------------------------------------------------
# Files

SHUT = [
    "upload", "upload_progress?upload_id=a", "file=README.md", "file=/etc/passwd", "file/app.py", "proxy=http://127.0.0.1/",
    "stream/a/b/1/playlist.m3u8", "deep_link?session_hash=a", "component_server", "process_recording", "dev/reload",
    "run-history/records", "custom_component/1/client/component/index.js", "vibe-code/", "user", "token", "theme.css",
]  # fmt: skip


@pytest.mark.parametrize("door", SHUT)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_gradios_other_doors_are_shut(attacked, door, method):
    status, _, body = ask(
        attacked.host, fuzz.http(attacked.host, method, f"/gradio_api/{door}", "application/json", b"")
    )
    assert (status, body) == (404, '{"detail":"Not Found"}')


@pytest.mark.parametrize("path", ["/monitoring", "/monitoring/summary", "/runs", "/runs/", "/openapi.json", "/login"])
def test_so_are_those_outside_its_interface(attacked, path):
    assert get(attacked.host, path)[0] == 404
    assert not is_used(path) and is_used("/") and is_used("/live") and is_used("/gradio_api/queue/join")


TARGETS = ["README.md", "app.py", ".git/config", "/etc/passwd", "etc/passwd", "checkpoints/duet-345/config.json"]
TARGETS += ["config.json", "weights.safetensors", "data.npz", "secret.png", "proc/self/environ"]


CLIMBS = ["", "../../../../../../../", "..%2f..%2f..%2f..%2f..%2f", "%2e%2e/%2e%2e/%2e%2e/", "..\\..\\", "/"]
ENDLESS = ("heartbeat", "queue/data", "/?", "//")


@pytest.mark.parametrize("prefix", [prefix for prefix in fuzz.PREFIXES if not any(part in prefix for part in ENDLESS)])
def test_no_file_is_readable(attacked, prefix):
    """(The fuzzing looks at what never ends, and at the page itself.)"""

    async def all_of(paths: list[str]) -> list[bytes]:
        limit = asyncio.Semaphore(8)

        async def one(path: str) -> bytes:
            async with limit:
                return await fuzz.exchange(attacked.host, fuzz.http(attacked.host, "GET", path), 20, fuzz.whole)

        return await asyncio.gather(*map(one, paths))

    paths = [prefix + climb + target + tail for target in TARGETS for climb in CLIMBS for tail in ("", "%00.png")]
    for path, answer in zip(paths, asyncio.run(all_of(paths)), strict=True):
        body = answer.decode("utf-8", "replace")
        assert body.startswith("HTTP/1.1 ") and fuzz.leak(body, path) is None, path
        assert "is not for you" not in body and '"architecture"' not in body and '"format_version"' not in body


def test_links_out_of_a_checkpoint_are_not_followed(attacked):
    assert get(attacked.host, "/models/tiny")[0] == 200
    for path in ("/models/linked", "/models/linked/secret.png", "/models/linked/README.md", "/models/tiny/config.json"):
        status, _, body = get(attacked.host, path)
        assert status == 404 and "is not for you" not in body


# ---------------------------------------------------------------------------------------------------
# Words from outside

MARKUP = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "${7*7}", "{{7*7}}", "%7B%7B7*7%7D%7D"]


@pytest.mark.parametrize("word", MARKUP)
def test_what_is_echoed_is_no_markup(attacked, word):
    """Sentences that quote the asker are JSON or plain text, never HTML."""
    with connect(f"ws://{attacked.host}/live") as link:
        for fields in ({"category": word + "?"}, {"model": word}, {"do": word}, {"do": "blend", "how": word}):
            link.send(json.dumps({"id": 1, "do": "complete", "strokes": START} | fields))
            answer = json.loads(link.recv(timeout=20))
            assert answer["type"] == "error" and "49" not in answer["message"], answer
    for path in (
        f"/models/{word}",
        f"/{word}",
        f"/gradio_api/{word}",
        f"/gradio_api/call/guess/{word}",
        f"/static/{word}",
    ):
        _, headers, body = get(attacked.host, path.replace(" ", "%20").replace("<", "%3C").replace(">", "%3E"))
        kind = dict(headers)["content-type"]
        assert "html" not in kind or "<img" not in body, (path, kind)
        assert dict(headers)["x-content-type-options"] == "nosniff"


def test_names_of_networks_cannot_leave_the_pages_script(attacked):
    _, _, page = get(attacked.host, "/")
    assert "<img src=x" not in page and "<b>quoted" not in page
    _, headers, listed = get(attacked.host, "/models")
    assert dict(headers)["content-type"] == "application/json"
    assert "<b>quoted' \"name" in [each["name"] for each in json.loads(listed)]


# ---------------------------------------------------------------------------------------------------
# What nobody can hold open or fill up


@contextmanager
def in_this_process(sketcher, **changes) -> Iterator:
    server = launch(Studio(sketcher), Settings(port=fuzz.free_port(), requests_per_minute=0))
    for name, value in changes.items():
        setattr(server.page.server.config, name, value)
    try:
        yield server
    finally:
        server.close()


def opened(server, *, buffer: int = 2048) -> socket.socket:
    """A WebSocket, as bare as can be, that has read nothing but the handshake."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    host = server.url.removeprefix("http://")
    raw.connect((host.split(":")[0], int(host.split(":")[1])))
    raw.sendall((fuzz.HELLO + fuzz.KEY + b"\r\n").replace(b"{host}", host.encode()))
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += raw.recv(1)
    assert answer.startswith(b"HTTP/1.1 101")
    return raw


def soon(true, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


LONG = json.dumps({"id": 1, "do": "inspect", "strokes": [[[i, i * i % 300] for i in range(250)]]}).encode()


def test_who_never_reads_gets_no_more_than_a_few_answers(tiny_sketcher):
    """A flood of requests from a client that is deaf: a few are worked on, the rest wait on its own side."""
    with in_this_process(tiny_sketcher) as server:
        raw = opened(server)
        raw.settimeout(3)
        most, began = 0, time.monotonic()
        with suppress(TimeoutError):  # the server does not listen any more
            while time.monotonic() - began < 8:
                raw.sendall(fuzz.frame(LONG))
                most = max(most, server.door.answering)
        assert 1 <= most <= MAX_UNHEARD
        raw.close()
        assert soon(lambda: server.door.answering == 0 and server.door.connections == 0)


def test_who_never_reads_is_cut(tiny_sketcher, monkeypatch):
    monkeypatch.setattr(connections, "GOODBYE_SECONDS", 0.3)
    with in_this_process(tiny_sketcher, ws_ping_interval=0.5, ws_ping_timeout=0.5) as server:
        raw = opened(server)
        raw.settimeout(20)
        with suppress(ConnectionError):  # on a busy machine the cut comes while this still writes
            for _ in range(10):
                raw.sendall(fuzz.frame(LONG))
        assert soon(lambda: server.door.connections == 0 and server.door.answering == 0, 20)
        with suppress(ConnectionError):
            while raw.recv(65536):  # what was on its way; without a cut this would time out
                pass


def test_pings_of_who_never_reads_fill_no_memory(tiny_sketcher, monkeypatch):
    monkeypatch.setattr(connections, "MAX_UNREAD", 100_000)
    with in_this_process(tiny_sketcher) as server:
        raw = opened(server)
        raw.settimeout(5)
        with pytest.raises(OSError):
            for _ in range(2_000):
                raw.sendall(fuzz.frame(b"x" * 125, 9) * 100)
        assert soon(lambda: server.door.connections == 0)


def test_fragments_without_end_are_cut(tiny_sketcher, monkeypatch):
    monkeypatch.setattr(connections, "MAX_FRAGMENTS", 100)
    with in_this_process(tiny_sketcher) as server:
        raw = opened(server)
        raw.sendall(fuzz.frame(b"{", fin=False) + fuzz.frame(b"", 0, fin=False) * 300)
        raw.settimeout(5)
        assert raw.recv(100) == b""


@pytest.mark.parametrize(
    "opening",
    [
        b"",
        b"GET /hea",
        b"POST /gradio_api/call/guess HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n[",
        b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n",
    ],
    ids=["silent", "half a line", "half a body", "half a handshake"],
)
def test_who_stalls_or_drips_is_cut(tiny_sketcher, monkeypatch, opening):
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.3)
    with in_this_process(tiny_sketcher) as server:
        raw = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        raw.sendall(opening)
        began = time.monotonic()
        raw.settimeout(0.2)
        answer = b"?"
        while time.monotonic() - began < 10:
            try:
                if opening:
                    raw.sendall(b"a")  # a byte at a time
                answer = raw.recv(1000)
                if answer == b"":
                    break
            except TimeoutError:
                continue
            except OSError:  # reset
                answer = b""
                break
        assert answer == b"" and 0.5 < time.monotonic() - began < 8
        # Who only waits long for an answer is not.
        with connect(server.url.replace("http", "ws") + "/live") as link:
            time.sleep(2)
            link.send(json.dumps({"id": 1, "do": "guess", "strokes": START}))
            assert json.loads(link.recv(timeout=20))["type"] == "done"


def test_answers_that_nobody_fetches_are_forgotten(tiny_sketcher):
    with in_this_process(tiny_sketcher) as server:
        host = server.url.removeprefix("http://")

        async def many() -> None:
            body = '{"data": [], "session_hash": "%s"}'
            asked = [fuzz.http(host, "POST", "/gradio_api/call/models", "application/json", b'{"data": []}')]
            asked += [
                fuzz.http(host, "POST", "/gradio_api/run/models", "application/json", (body % f"s{i}").encode())
                for i in range(SESSIONS + 50)
            ]
            for begin in range(0, len(asked), 10):
                await asyncio.gather(*(fuzz.exchange(host, each, 20, fuzz.whole) for each in asked[begin : begin + 10]))

        asyncio.run(many())
        queue = server.page._queue
        assert SESSIONS - 60 < len(server.page.app.state_holder.session_data) <= SESSIONS
        for i in range(SESSIONS * 2):
            queue.pending_event_ids_session[str(i)] = set()
            queue.pending_messages_per_session[str(i)] = None
        assert len(queue.pending_event_ids_session) == len(queue.pending_messages_per_session) == SESSIONS


def test_many_connections_at_once_hurt_nobody(attacked):
    """Three hundred that say half a word, beside somebody who draws."""
    before = attacked.resources()
    held = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(300)]
    try:
        for number, each in enumerate(held):
            each.sendall([b"GET /hea", b"", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"][number % 3])
        assert min(asyncio.run(fuzz.person(attacked.host)) for _ in range(2)) < fuzz.PATIENCE
    finally:
        for each in held:
            each.close()
    assert soon(lambda: attacked.resources()["files"] <= before["files"] + 10)
    assert attacked.process.poll() is None
