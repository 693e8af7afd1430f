"""What the page's server does with junk: thousands of malformed inputs to every way into a real server process.

    python -m benchmarks.fuzz --n 10000

Hypothesis draws the inputs (with ``--seed``), in batches: messages on the WebSocket, its frames and handshakes, calls
of the named endpoints and of Gradio's queue, bodies of every kind to every route, addresses that reach for files, raw
bytes in place of HTTP, and connections that drip or stall meanwhile. After each batch the server must answer a person
within two seconds; no answer may hold a traceback, a path of the server's or what is in its files; and memory, file
descriptors and threads must stay where they were after the first batches. Exits with 1 where one of these fails.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from benchmarks.serving import free_port

ROOT = Path(__file__).resolve().parent.parent
BATCH = 250
AT_ONCE = 8
PATIENCE = 2.0
"""Seconds within which a person's request must be answered after each batch."""
HANDSHAKE = 10.0
"""Seconds that a busy machine may take to open a WebSocket."""
MOST_GROWTH = 40.0
"""Megabytes by which the server may grow after it has warmed up."""
WARM = 12
"""Batches after which it has: most of what it keeps, which is bounded, is filled by then. (20,000 inputs: 665 MB after
2,000, 702 after 14,000, 704 at the end.)"""

# What no answer may hold, unless it was asked with it: an echo of the question is no secret.
LEAKS = [
    "Traceback (most recent",
    'File "',
    "site-packages",
    "object at 0x",
    str(ROOT),
    sys.prefix,
    f"{Path.home()}/",
]
# What only files hold.
CONTENTS = ["root:x:0:0", "[core]", "def main(", "## Two commands", '"min_sigma"', "HOSTNAME=", "gradio.helpers"]


@dataclass
class Case:
    """One malformed input: how it is sent and what is sent."""

    way: str
    value: Any


@dataclass
class Report:
    """What was found."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    batches: list[dict[str, float]] = field(default_factory=list)
    cases: int = 0

    def count(self, way: str, outcome: object) -> None:
        self.outcomes.setdefault(way, Counter())[str(outcome)] += 1
        self.cases += 1

    def fault(self, case: Case, why: str) -> None:
        self.faults.append(f"{case.way}: {why}: {repr(case.value)[:300]}")


# ---------------------------------------------------------------------------------------------------
# What is sent

START = [[[100, 100], [200, 120], [260, 220], [180, 300]]]
JOBS = ("complete", "vary", "draw", "compare", "blend", "inspect", "guess")
GOOD = {
    "strokes": START, "n": 1, "seeds": 1, "steps": 2, "temperatures": [0.4], "drawings": [START, START],
    "category": None, "categories": None, "temperature": 0.4, "seed": 0, "pen_down": False, "guidance": 4.0,
    "spread": 0.5, "of": "draw", "how": "strip", "model": None,
}  # fmt: skip
EVIL_TEXT = [
    "", "\x00", "\ud800", "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "${7*7}", "{{7*7}}",
    "{{constructor.constructor('return 1')()}}", "__proto__", "../../etc/passwd", "/etc/passwd", "'; DROP TABLE x; --",
    "%s%n%x", "$(touch /tmp/duet_fuzz)", "`id`", "file:///etc/passwd", "http://127.0.0.1:1/", "cat\nSet-Cookie: a=b",
    "x" * 5_000, "\u202e\u200b", "🐈" * 50, "NaN", "1e999", "true", "complete",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 9, 10, 2**31, 2**53, 2**63, 2**70, 10**400, 0.5, 1e300, -1e300, 1e-320, 5e9]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, *NUMBERS, *EVIL_TEXT, START, START[0], [[]], {}, [None]]) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["strokes", "a", "points", "__class__", ""]), inner, max_size=3)
    ),
    max_leaves=12,
)
SANE = st.sampled_from([0, 1, 2, 0.2, 0.7, None, "cat", "draw", "vary", "grid", [0.2, 0.9], [START] * 4, START * 3])
DEEP = st.builds(
    lambda pair, depth, close: pair[0] * depth + (pair[1] * depth if close else ""),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ('[{"strokes":', "}]")]),
    st.sampled_from([5, 100, 990, 5_000, 40_000]),
    st.booleans(),
)
HUGE = st.sampled_from(
    [
        "[" + "0," * 100_000 + "0]",
        '{"id": ' + "9" * 10_000 + "}",
        '"' + "x" * 250_000 + '"',
        json.dumps({"id": 1, "do": "complete", "strokes": [[[i % 500, i // 5] for i in range(2_500)]]}),
        json.dumps({"id": 1, "do": "complete", "strokes": [[[1, 1]]] * 401}),
        json.dumps({"id": 1, "do": "blend", "drawings": [[[[1, 2]] * 9_000]] * 2}),
        "\ufeff{}", "nul", "{'id': 1}", '{"id": 1, "id": "x"}', "", " ", "\x00", "]", '{"id":1}{"id":2}', "-", "1e5",
    ]
)  # fmt: skip


def mutated(fields: dict[str, Any], values: st.SearchStrategy[Any] = JUNK | SANE) -> st.SearchStrategy[dict[str, Any]]:
    """A good request of which some fields are junk, or missing."""
    return st.builds(
        lambda do, changed, gone: {k: v for k, v in (fields | {"id": 1, "do": do} | changed).items() if k not in gone},
        st.sampled_from([*JOBS]),
        st.dictionaries(st.sampled_from([*fields, "do", "extra"]), values, max_size=3),
        st.sets(st.sampled_from([*fields]), max_size=1),
    )


LIVE = st.one_of(
    *[mutated(GOOD).map(json.dumps)] * 5,
    *[mutated(GOOD, SANE).map(json.dumps)] * 2,
    JUNK.map(json.dumps),
    DEEP,
    HUGE,
    st.builds(lambda text, at: text[: int(at * len(text))], mutated(GOOD).map(json.dumps), st.floats(0, 1)),
    st.binary(max_size=300),
    JUNK.map(lambda value: json.dumps({"cancel": value})),
    JUNK.map(lambda value: json.dumps({"id": value, "do": "guess", "strokes": START})),
)

ORDER = {
    "complete": ("strokes", "category", "temperature", "n", "seed", "pen_down"),
    "vary": ("strokes", "category", "temperature", "n", "seed"),
    "draw": ("category", "temperature", "n", "seed"),
    "compare": ("strokes", "category", "of", "temperatures", "seeds", "seed"),
    "blend": ("drawings", "categories", "how", "steps", "temperature", "seed"),
    "inspect": ("strokes", "category"),
    "guess": ("strokes",),
    "categories": (),
    "models": (),
}
NAMES = [*ORDER, "complete", "nothing", "", "..", "complete/../guess", "%00", "predict", "lambda", "0", "choices", "é"]
SESSIONS = st.sampled_from([None, "a", "b" * 40, "c" * 100_000, "\x00", "../x", {}, 5, "<script>"]) | st.text(
    max_size=6
)


def call_body(name: str, changed: dict[int, Any], extra: dict[str, Any], cut: int | None) -> dict[str, Any]:
    data = [GOOD[field] for field in ORDER.get(name, ())]
    for at, value in changed.items():
        if at < len(data):
            data[at] = value
    return {"data": data[:cut]} | extra


BODIES = st.builds(
    call_body,
    st.sampled_from([*ORDER]),
    st.dictionaries(st.integers(0, 5), JUNK, max_size=3),
    st.dictionaries(
        st.sampled_from(["session_hash", "fn_index", "event_data", "trigger_id", "batched", "event_id", "data", "x"]),
        SESSIONS | JUNK | st.integers(-2, 40),
        max_size=2,
    ),
    st.none() | st.integers(0, 8),
)
QUEUE = ("queue/join", "cancel", "reset", "reset/", "call/v2/complete", "run/complete/", "api/complete", "queue/join/x")
API = st.tuples(
    st.sampled_from([f"{kind}/{name}" for kind in ("call", "run") for name in NAMES] + [*QUEUE] * 2),
    st.one_of(*[BODIES.map(json.dumps)] * 5, JUNK.map(json.dumps), DEEP, HUGE),
    st.booleans(),
)
WELL = [(f"call/{name}", json.dumps(call_body(name, {}, {}, None)), True) for name in ORDER]

ROUTES = [
    "/", "/live", "/health", "/metrics", "/models", "/models/tiny", "/share/svg", "/share/gif", "/config", "/theme.css",
    "/gradio_api/upload", "/gradio_api/upload?upload_id=a", "/gradio_api/component_server", "/gradio_api/info",
    "/gradio_api/stream/x", "/gradio_api/process_recording", "/gradio_api/vibe-edit", "/gradio_api/vibe-code/",
    "/gradio_api/queue/join", "/gradio_api/call/complete", "/gradio_api/run/guess", "/gradio_api/mcp/", "/login",
    "/gradio_api/run-history/connect", "/gradio_api/heartbeat/a", "/gradio_api/queue/data?session_hash=a", "/nothing",
]  # fmt: skip
KINDS = [
    "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=x", "application/octet-stream", "image/svg+xml", "text/xml", "\x7f", "a" * 3_000,
    "application/json; charset=utf-7", "application/x-pickle",
]  # fmt: skip
XML_BOMB = b'<!DOCTYPE a [<!ENTITY b "' + b"c" * 99 + b'">' + b"<!ENTITY d '&b;&b;&b;&b;'>" * 9 + b"]><svg>&d;</svg>"
CONTENT = st.one_of(
    st.binary(max_size=400),
    st.sampled_from(
        [
            b"", b"\x00" * 200_000, b"x" * 400_000, b"--x\r\n" * 5_000, XML_BOMB, b"<svg>" * 20_000,
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="../a.py"\r\n\r\nprint()\r\n--x--\r\n',
            b'--x\r\nContent-Disposition: form-data; name="fn_name"\r\n\r\nx\r\n--x--\r\n',
            b"\x80\x04\x95cos\nsystem\n.",
            b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0L' + b"9 9 " * 30_000 + b'"/></svg>',
            b'<svg><image href="file:///etc/passwd"/><path d="M0 0L5e400 nan"/></svg>',
        ]
    ),
    BODIES.map(lambda body: json.dumps(body).encode()),
)  # fmt: skip
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "X" * 300]
POSTS = st.tuples(st.sampled_from(["POST"] * 8 + METHODS), st.sampled_from(ROUTES), st.sampled_from(KINDS), CONTENT)

PREFIXES = [
    "/models/", "/models/tiny/", "/models/linked/", "/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/", "/",
    "/static/", "/assets/", "/svelte/", "/gradio_api/proxy=", "/proxy=", "/gradio_api/stream/", "/gradio_api/call/",
    "/gradio_api/custom_component/1/client/component/", "/gradio_api/deep_link?session_hash=", "/gradio_api/heartbeat/",
    "/gradio_api/upload_progress?upload_id=", "/theme.css?", "/?__theme=", "/monitoring/", "/live/", "/pwa_icon/", "//",
    "/gradio_api/queue/data?session_hash=", "/gradio_api/run-history/records/", "/?deep_link=", "/?view=", "/metrics/",
]  # fmt: skip
CLIMBS = ["", "../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..\\", "....//", "..;/", "%c0%ae%c0%ae/", "..%00/", "./", "/"]
TARGETS = [
    "etc/passwd", "/etc/passwd", "app.py", ".git/config", "README.md", "config.json", "weights.safetensors",
    "secret.png",
    "checkpoints/duet-345/config.json", "proc/self/environ", "/proc/self/environ", "pyproject.toml", "", "x", "é",
    "http://127.0.0.1:80/health", "file:///etc/passwd", "C:\\Windows\\win.ini", "\\\\host\\share", "~root/.bashrc",
    "~/.ssh/id_rsa", "tiny", "tiny/config.json", "%", "%zz", "%ff%fe", "%00", "a" * 6_000, "<script>alert(1)</script>",
]  # fmt: skip
PATHS = st.builds(
    lambda method, prefix, climb, times, target, tail, quoted: (
        method,
        prefix + _quoted(climb * times + target, quoted) + tail,
    ),
    st.sampled_from(["GET"] * 6 + ["HEAD", "OPTIONS", "PUT", "DELETE"]),
    st.sampled_from(PREFIXES),
    st.sampled_from(CLIMBS),
    st.integers(0, 8),
    st.sampled_from(TARGETS),
    st.sampled_from(["", "", ".png", "%00.png", "?x=<b>", "/", "/.", ";.png"]),
    st.integers(0, 2),
)

HELLO = b"GET /live HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
PLAIN = b"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"
POST = b"POST /gradio_api/call/guess HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
RAW_SEEDS = [
    PLAIN,
    b"GET /health\r\n\r\n", b"GET  /health HTTP/1.1\r\n\r\n", b"GET /health HTTP/9.9\r\nHost: {host}\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n", b"GET http://elsewhere/ HTTP/1.1\r\nHost: {host}\r\n\r\n", b"\r\n" * 5_000,
    b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500, b"GET /health HTTP/1.1\nHost: {host}\n\n",
    PLAIN[:-2] + b"X" * 70_000 + b": a\r\n\r\n", PLAIN[:-2] + b"A: b\r\n" * 9_000 + b"\r\n",
    PLAIN[:-2] + b"A : b\r\n\r\n", PLAIN[:-2] + b"A\x00: b\x00\r\n\r\n", PLAIN[:-2] + b"no colon\r\n\r\n",
    PLAIN[:-2] + b" folded\r\n\tmore\r\n\r\n", PLAIN[:-2] + b"Host: other\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: [\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    PLAIN[:-2] + b"Origin: http://[\r\n\r\n", POST + b"Origin: https://evil.example\r\nContent-Length: 2\r\n\r\n{}",
    POST + b"Content-Length: -1\r\n\r\n{}", POST + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}",
    POST + b"Content-Length: 99999999999999999999\r\n\r\n{}", POST + b"Content-Length: 1e3\r\n\r\n{}",
    POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /config HTTP/1.1\r\nHost: a\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", POST + b"Transfer-Encoding: xchunked\r\n\r\n{}",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", POST + b"Content-Length: 40\r\n\r\n{}",
    POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
    POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    PLAIN * 50, PLAIN[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    PLAIN[:-2] + b"Range: bytes=0-,0-,0-\r\nCookie: " + b"a=b; " * 2_000 + b"\r\n\r\n",
    PLAIN[:-2] + b"X-Forwarded-For: <b>, 1.2.3.4\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: javascript\r\n\r\n",
    HELLO + b"\r\n", HELLO + KEY.replace(b"13", b"99") + b"\r\n", HELLO + KEY.replace(b"dGhl", b"....") + b"\r\n",
    HELLO + KEY + b"Origin: https://evil.example\r\n\r\n", HELLO + KEY + b"Origin: null\r\n\r\n",
    HELLO + KEY + b"Sec-WebSocket-Extensions: permessage-deflate; x=" + b"y" * 5_000 + b"\r\n\r\n",
    HELLO + KEY + b"Sec-WebSocket-Protocol: a, b, <c>\r\n\r\n", HELLO.replace(b"GET", b"POST") + KEY + b"\r\n",
    HELLO.replace(b"/live", b"/nothing") + KEY + b"\r\n", HELLO.replace(b"/live", b"/gradio_api/mcp") + KEY + b"\r\n",
    HELLO + KEY + b"X: " + b"a" * 20_000 + b"\r\n\r\n", HELLO + KEY + b"A: b\r\n" * 300 + b"\r\n",
]  # fmt: skip


def bent(body: bytes, places: list[tuple[float, int]]) -> bytes:
    """Some bytes of it changed."""
    changed = bytearray(body)
    for at, value in places:
        if changed:
            changed[int(at * len(changed))] = value
    return bytes(changed)


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
RAW = st.one_of(
    st.sampled_from(RAW_SEEDS),
    st.builds(bent, st.sampled_from(RAW_SEEDS), FLIPS),
    st.builds(lambda body, at: body[: int(at * len(body))], st.sampled_from(RAW_SEEDS), st.floats(0, 1)),
    st.binary(min_size=1, max_size=500),
)


def frame(  # noqa: PLR0917 (as they stand on the wire)
    payload: bytes, opcode: int = 1, fin: bool = True, masked: bool = True, reserved: int = 0, claims: int | None = None
) -> bytes:
    """A WebSocket frame, right or wrong."""
    length = len(payload) if claims is None else claims
    head = bytes([(fin << 7) | (reserved << 4) | opcode])
    mask = (masked << 7) & 0x80
    if length < 126:
        head += bytes([mask | length])
    elif length < 65536:
        head += bytes([mask | 126]) + struct.pack(">H", length)
    else:
        head += bytes([mask | 127]) + struct.pack(">Q", length % 2**64)
    if not masked:
        return head + payload
    return head + b"abcd" + bytes(value ^ b"abcd"[i % 4] for i, value in enumerate(payload))


ASK = json.dumps({"id": 1, "do": "guess", "strokes": START}).encode()
ONE_FRAME = st.builds(
    frame,
    st.binary(max_size=200) | st.sampled_from([ASK, b"\xff\xfe\xfd", b"\xc3", b"\x03\xe8", b"\x00\x01", b"x" * 70_000]),
    st.integers(0, 15),
    st.booleans(),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 1, 4, 7]),
    st.sampled_from([None, None, None, 0, 125, 126, 65_535, 2**20, 2**31, 2**63, 2**64 - 1]),
)
FRAMES = st.one_of(
    st.lists(ONE_FRAME, min_size=1, max_size=6).map(b"".join),
    st.binary(min_size=1, max_size=300),
    st.builds(bent, st.just(frame(ASK)), FLIPS),
    st.integers(1, 300).map(
        lambda n: frame(ASK[:1], fin=False) + frame(b"", 0, fin=False) * n + frame(ASK[1:], 0, fin=True)
    ),
    st.just(frame(b"a" * 125, 9) * 400),
    st.just(frame(b"{", fin=False) + frame(b"}", 1)),
    st.just(frame(b"x" * 600_000) * 2),
)

WAYS: dict[str, tuple[st.SearchStrategy[Any], float]] = {
    "live": (LIVE, 0.30),
    "api": (API, 0.26),
    "post": (POSTS, 0.12),
    "path": (PATHS, 0.16),
    "raw": (RAW, 0.09),
    "frames": (FRAMES, 0.07),
}


def _quoted(text: str, times: int) -> str:
    for _ in range(times):
        text = "".join(c if c.isalnum() else "".join(f"%{b:02x}" for b in c.encode("utf-8")) for c in text)
    return text


def drawn(strategy: st.SearchStrategy[Any], n: int, seed: int) -> list[Any]:
    """n values of a strategy, always the same ones for a seed."""
    found: list[Any] = []

    @hypothesis_seed(seed)
    @settings(
        max_examples=n, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    dice = random.Random(seed)
    while len(found) < n:  # where there are fewer different ones
        found.append(dice.choice(found))
    return found[:n]


def cases(n: int, seed: int) -> list[Case]:
    """n inputs of all ways, mixed."""
    found = []
    for number, (way, (strategy, share)) in enumerate(WAYS.items()):
        values = drawn(strategy, max(1, round(n * share)), seed * 100 + number)
        if way == "api":  # what Hypothesis draws hangs on its version; these calls are to be there and to succeed
            values[: len(WELL)] = WELL[: len(values)]
        found += [Case(way, value) for value in values]
    random.Random(seed).shuffle(found)
    return found


# ---------------------------------------------------------------------------------------------------
# The server


class Served:
    """A real server process, with a folder of checkpoints that holds a hostile one beside a good one."""

    def __init__(
        self, checkpoint: str | None = None, folder: Path | None = None, port: int = 0, **variables: str
    ) -> None:
        self.port = port or free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.log = Path(tempfile.mkstemp(prefix="duet-log-")[1])
        given = {"DUET_CHECKPOINT": checkpoint, "DUET_CHECKPOINTS": str(folder) if folder else None}
        quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "DUET_REQUESTS_PER_MINUTE": "0", "DUET_DEVICE": "cpu"}
        self.environment = os.environ | quiet | {name: value for name, value in given.items() if value} | variables
        self.start()

    def start(self) -> None:
        """In a process of its own; a second time after the first has ended."""
        command = [sys.executable, "app.py", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=self.environment)

    def wait(self, seconds: float = 120.0) -> Served:
        """Until it has warmed up.

        Raises:
            RuntimeError: it has not, or it has ended.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://{self.host}/health", timeout=5) as answer,
            ):
                if answer.status == 200:
                    return self
            time.sleep(0.2)
        raise RuntimeError(f"The server did not start: {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def resources(self) -> dict[str, float]:
        """Megabytes in memory, file descriptors, threads."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = {key: int(re.search(rf"{key}:\s+(\d+)", status)[1]) for key in ("VmRSS", "Threads")}  # type: ignore[index]
        files = len(os.listdir(f"/proc/{self.process.pid}/fd"))
        return {"rss_mb": round(found["VmRSS"] / 1024, 1), "threads": found["Threads"], "files": files}


@contextlib.contextmanager
def served(checkpoint: str | None = None, folder: Path | None = None, **variables: str) -> Iterator[Served]:
    server = Served(checkpoint, folder, **variables)
    try:
        yield server.wait()
    finally:
        server.stop()


# ---------------------------------------------------------------------------------------------------
# Sending


async def exchange(
    host: str, request: bytes, seconds: float, until: Callable[[bytes], bool] = lambda _: False, then: bytes = b""
) -> bytes:
    """What comes back for raw bytes, until the connection is closed or the time is over."""
    name, port = host.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(name, int(port))
    answer = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(HANDSHAKE if then else seconds) as limit:
                writer.write(request)
                await writer.drain()
                while (part := await reader.read(65536)) and len(answer) < 2_000_000:
                    answer += part
                    if then and b"\r\n\r\n" in answer:  # what follows a handshake waits for its answer
                        writer.write(then)
                        then = b""
                        limit.reschedule(asyncio.get_running_loop().time() + seconds)
                    if until(answer):
                        break
    finally:
        writer.close()
        with contextlib.suppress(Exception):
            await writer.wait_closed()
    return answer


def whole(answer: bytes) -> bool:
    """Whether an answer over HTTP has come to its end."""
    head, found, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if found and length:
        return len(body) >= int(length[1])
    return bool(found) and (answer.endswith(b"0\r\n\r\n") or head.startswith(b"HTTP/1.1 204"))


def http(host: str, method: str, path: str, kind: str = "", body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    if body or method == "POST":
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return (head + "\r\n").encode("utf-8", "surrogatepass") + body


def expected_id(text: str | bytes) -> int | None:
    """The id under which a message must be answered, if it is whole enough to have one."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if type(message) is not dict or "cancel" in message or isinstance(text, bytes):
        return None
    number = message.get("id")
    return number if type(number) is int and 0 <= number < 2**53 else None


def leak(answer: str, asked: str) -> str | None:
    """What an answer tells that it must not."""
    for mark in LEAKS:
        if mark in answer and mark not in asked:
            return mark
    return next((mark for mark in CONTENTS if mark in answer), None)


class Attack:
    """Sends cases to a server and looks at what comes back."""

    def __init__(self, host: str, report: Report) -> None:
        self.host, self.report = host, report
        self.links: list[Any] = []

    async def run(self, batch: list[Case]) -> None:
        queue = [*batch]

        async def work() -> None:
            async with contextlib.AsyncExitStack() as stack:
                link = None
                while queue:
                    case = queue.pop()
                    try:
                        if case.way == "live":
                            if link is None:
                                link = await stack.enter_async_context(connect(f"ws://{self.host}/live", max_size=None))
                            link = await self.live(link, case)
                        else:
                            await getattr(self, case.way)(case)
                    except Exception as error:
                        self.report.fault(case, f"{type(error).__name__}: {error}")

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def live(self, link: Any, case: Case) -> Any:
        """A message must be answered on the same connection, which goes on; only what is far too large may end it."""
        text = case.value.encode("utf-8", "replace").decode() if isinstance(case.value, str) else case.value
        expected = expected_id(text)
        probe = 900_000 + self.report.cases
        try:
            await link.send(text)
            if expected is None:  # it need not be answered, but what comes after it must be
                await link.send(json.dumps({"id": probe, "do": "guess"}))
            outcome = "no answer needed"
            while True:
                answer = json.loads(await asyncio.wait_for(link.recv(), 20))
                if answer["type"] == "points":
                    continue
                if answer["type"] == "error":
                    told = answer["message"]
                    if not 5 < len(told) < 300 or leak(told, str(case.value)) or not told.isprintable():
                        self.report.fault(case, f"says {told!r}")
                if answer["id"] == probe:
                    break
                outcome = answer["type"] if answer["type"] == "done" else f"error {answer['code']}"
                if outcome == "error internal":
                    self.report.fault(case, "an internal error")
                if expected is not None and answer["id"] in (expected, None):
                    break
            self.report.count("live", outcome)
            return link
        except TimeoutError:
            self.report.fault(case, "was not answered")
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            self.report.count("live", f"closed {code}")
            if code != 1009:
                self.report.fault(case, f"the connection was closed with {code}")
        return None

    def look(self, case: Case, answer: bytes, asked: bytes) -> int | None:
        """The status of an answer over HTTP, once it has been looked through."""
        text, question = answer.decode("utf-8", "replace"), asked.decode("utf-8", "replace")
        if found := leak(text, question + repr(case.value)):
            self.report.fault(case, f"the answer holds {found!r}: {text[-300:]!r}")
        status = re.match(r"HTTP/1\.[01] (\d{3})", text)
        code = int(status[1]) if status else None
        told = re.search(r'\{"error":"(.{15,300})","duration"', text)  # Gradio's form of an error with a sentence
        if code and code >= 500 and code not in (501, 503) and not told:
            self.report.fault(case, f"status {code}: {text[-200:]!r}")
        before = b"Invalid HTTP request" in answer or b"Failed to open a WebSocket" in answer  # uvicorn's own parsers
        if code and code >= 200 and b"content-security-policy" not in answer.lower() and not before:
            self.report.fault(case, f"status {code} without a policy: {text[:200]!r}")
        return code

    async def api(self, case: Case) -> None:
        path, body, fetch = case.value
        asked = http(
            self.host, "POST", "/gradio_api/" + _quoted_path(path), "application/json", body.encode("utf-8", "replace")
        )
        answer = await exchange(self.host, asked, 20, whole)
        status = self.look(case, answer, asked)
        self.report.count("api", status)
        if status is None:
            self.report.fault(case, "no answer")
        event = re.search(rb'"event_id": ?"(\w+)"', answer)
        if event and fetch:
            asked = http(self.host, "GET", f"/gradio_api/{_quoted_path(path)}/{event[1].decode()}")
            told = await exchange(
                self.host, asked, 20, lambda seen: b"event: complete" in seen or b"event: error" in seen
            )
            self.look(case, told, body.encode("utf-8", "replace"))

    async def post(self, case: Case) -> None:
        method, path, kind, body = case.value
        asked = http(self.host, method, path, kind, body)
        endless = method == "GET" and ("heartbeat" in path or "queue/data" in path)
        answer = await exchange(self.host, asked, 0.3 if endless else 20, whole)
        self.report.count("post", self.look(case, answer, asked))

    async def path(self, case: Case) -> None:
        method, path = case.value
        asked = http(self.host, method, path.replace(" ", "%20"))
        endless = "heartbeat" in path or "queue/data" in path
        answer = await exchange(self.host, asked, 0.3 if endless else 20, whole)
        status = self.look(case, answer, asked)
        self.report.count("path", status)
        if status is None:
            self.report.fault(case, "no answer")

    async def raw(self, case: Case) -> None:
        asked = case.value.replace(b"{host}", self.host.encode())
        answer = await exchange(self.host, asked, 0.4)
        self.report.count("raw", self.look(case, answer, asked))

    async def frames(self, case: Case) -> None:
        hello = (HELLO + KEY + b"\r\n").replace(b"{host}", self.host.encode())
        answer = await exchange(self.host, hello, 0.5, then=case.value)
        opened = answer.startswith(b"HTTP/1.1 101")
        if found := leak(answer.decode("utf-8", "replace"), ""):
            self.report.fault(case, f"the answer holds {found!r}")
        if not opened:
            self.report.fault(case, f"no WebSocket: {answer[:100]!r}")
        closed = re.search(rb"\x88.(..)", answer, re.DOTALL)
        self.report.count("frames", f"closed {struct.unpack('>H', closed[1])[0]}" if closed else "open")

    async def stall(self, stop: asyncio.Event) -> int:
        """Connections that drip, stall or never read, until told to stop; returns how many the server has cut."""
        name, port = self.host.rsplit(":", 1)
        hello = (HELLO + KEY + b"\r\n").replace(b"{host}", self.host.encode())
        openings = [
            b"GET /hea", POST.replace(b"{host}", self.host.encode()) + b"Content-Length: 9999\r\n\r\n[",
            hello[:60], hello + frame(ASK)[:5], hello, b"", http(self.host, "GET", "/config"),
            hello + frame(b"a" * 125, 9) * 100,
        ]  # fmt: skip

        async def one(number: int) -> bool:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(name, int(port), limit=1)
                writer.write(openings[number % len(openings)])
                while not stop.is_set():
                    if writer.transport.is_closing() or reader.at_eof():
                        return True
                    if number % 2:
                        writer.write(b"a")  # a byte at a time
                    await asyncio.sleep(0.7)
                writer.transport.abort()
            return False

        return sum(await asyncio.gather(*(one(number) for number in range(40))))


def _quoted_path(path: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c != " " else _quoted(c, 1) for c in path)


async def person(host: str) -> float:
    """Seconds until a person's requests are answered: an ending on the WebSocket, /health, a named endpoint."""
    began = time.perf_counter()
    async with connect(f"ws://{host}/live", max_size=None) as link:
        await link.send(json.dumps({"id": 1, "do": "complete", "strokes": START, "n": 1}))
        while json.loads(await asyncio.wait_for(link.recv(), 30))["type"] == "points":
            pass
    for asked in (
        http(host, "GET", "/health"),
        http(host, "POST", "/gradio_api/call/categories", "application/json", b'{"data": []}'),
    ):
        answer = await exchange(host, asked, 30, whole)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"A person's request was answered by {answer[:200]!r}.")
    return time.perf_counter() - began


async def attack(server: Served, n: int, seed: int, tell: Callable[[str], None] = print) -> Report:
    """Send n cases in batches; see the module's text for what must hold."""
    report = Report()
    tell(f"drawing {n:,} cases")
    waiting = cases(n, seed)
    attacker, stop = Attack(server.host, report), asyncio.Event()
    stalled = asyncio.create_task(attacker.stall(stop))
    tell(f"{'cases':>8}{'person ms':>11}{'MB':>8}{'files':>7}{'threads':>9}{'faults':>8}")
    for begin in range(0, len(waiting), BATCH):
        await attacker.run(waiting[begin : begin + BATCH])
        if server.process.poll() is not None:
            report.faults.append("The server has ended.")
            break
        took = min([await person(server.host) for _ in range(2)])
        report.batches.append({"cases": report.cases, "person_ms": round(took * 1e3)} | server.resources())
        last = report.batches[-1]
        tell(
            f"{last['cases']:>8}{last['person_ms']:>11.0f}{last['rss_mb']:>8.1f}{last['files']:>7.0f}"
            f"{last['threads']:>9.0f}{len(report.faults):>8}"
        )
        if took > PATIENCE:
            report.faults.append(f"A person waited {took:.1f} s after {report.cases} cases.")
    stop.set()
    cut = await stalled
    tell(f"{cut} of 40 connections that stalled or dripped were cut by the server meanwhile")
    return report


def judged(report: Report, warm: int = WARM) -> list[str]:
    """Faults, and what has grown."""
    found = [*report.faults]
    if len(report.batches) > warm + 1:
        before, after = report.batches[warm], report.batches[-1]
        for what, most in (("rss_mb", MOST_GROWTH), ("files", 60), ("threads", 12)):
            if after[what] - before[what] > most:
                found.append(f"{what} went from {before[what]:g} to {after[what]:g}.")
    return found


def secret_folder(place: Path) -> Path:
    """A folder of checkpoints: "tiny", which is good, and others that reach out of it or speak in markup."""
    import numpy as np
    import torch

    from sketch_core import checkpoint
    from sketch_core.model import SketchRNN, SketchRNNConfig

    torch.manual_seed(3)
    sizes = SketchRNNConfig(
        n_categories=3, category_size=4, encoder_size=8, decoder_size=16, z_size=6, n_mixtures=3, min_sigma=0.01
    )
    model = SketchRNN(sizes, scale_factor=30.0, n_max=60)
    with torch.no_grad():
        model.decoder.output.bias[2] = -2.0  # drawings of a handful of points
    names = ["cat", "<img src=x onerror=alert(1)>", "${7*7} {{7*7}} \"'`"]
    made = checkpoint.Checkpoint.from_model(model, names, name="tiny")
    for name in ("tiny", "<b>quoted' \"name", "linked"):
        folder = checkpoint.save(made, place / "checkpoints" / name)
        (folder / "README.md").write_text("# <script>alert(1)</script>\n\n[a](javascript:alert(1)) ![b](sheet.png)\n")
    outside = place / "outside"
    outside.mkdir()
    (outside / "README.md").write_text("def main( is not for you")
    (outside / "secret.png").write_text("root:x:0:0 is not for you")
    for name in ("README.md", "secret.png"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside / name)
    np.savez(place / "checkpoints" / "tiny" / "data.npz", np.zeros(3))
    return place / "checkpoints"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="inputs [10000]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="network that answers [the shipped one]")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, served(options.checkpoint, secret_folder(Path(place))) as server:
        asyncio.run(person(server.host))
        began = time.perf_counter()
        report = asyncio.run(attack(server, options.n, options.seed, lambda line: print(line, flush=True)))
        seconds = time.perf_counter() - began
        logged = server.log.read_text(errors="replace").count("Traceback")
    faults = judged(report)
    for way, outcomes in report.outcomes.items():
        print(f"{way:<8}{sum(outcomes.values()):>7}  " + ", ".join(f"{k} {n}" for k, n in outcomes.most_common()))
    print(
        f"{report.cases:,} cases in {seconds:.0f} s, {len(faults)} faults; tracebacks in the server's own log: {logged}"
    )
    for fault in faults[:40]:
        print(f"  {fault}")
    if options.json:
        found = {"cases": report.cases, "outcomes": report.outcomes, "batches": report.batches, "faults": faults}
        options.json.write_text(json.dumps(found | {"logged": logged}, indent=1))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
