"""How the page's server bears a crowd: a real server, and clients that draw like people.

    python -m benchmarks.serving

Each client holds a WebSocket, draws a stroke every 1.5 seconds, asks for nine endings after each, and starts a new
drawing after six; a new stroke cancels what it asked before. Measured from request to first point and to all nine
endings (of requests that were not cancelled), for 1, 8 and 32 clients, and then how many drawings a second come out
when every client asks again at once: with continuous batching, and one request at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

CATEGORIES = ("cat", "face", "car", "bicycle", "house", "flower", "fish", "bird")
PAUSE = 1.5


def serve_page(port: int, continuous: bool, checkpoint: str | None) -> None:
    """The page's own server (run in a process of its own)."""
    import sketch_core
    from app.server import StopSignal, serve
    from app.settings import Settings
    from app.studio import Studio

    sketcher = sketch_core.load(checkpoint, device="cpu")
    studio = Studio(sketcher) if continuous else Studio(sketcher, readers=1, continuous=False)
    serve(studio, Settings(port=port, requests_per_minute=0), StopSignal())


def doodle(generator: np.random.Generator) -> list[list[list[float]]]:
    """Six strokes: wobbly ovals and lines on a 512 pad."""
    strokes = []
    for number in range(6):
        x, y, wide, high = (float(v) for v in generator.uniform((120, 120, 20, 20), (390, 390, 110, 110)))
        if number % 2:
            t = np.linspace(0.0, 1.0, 12)
            path = np.stack([x + wide * t, y + high * t * t], axis=1)
        else:
            t = np.linspace(0.0, 2.0 * np.pi, 24)
            path = np.stack([x + wide * np.cos(t), y + high * np.sin(t)], axis=1)
        strokes.append((path + generator.normal(0.0, 1.5, path.shape)).round(1).tolist())
    return strokes


class Client:
    """One visitor."""

    def __init__(self, url: str, number: int) -> None:
        self.url, self.generator, self.number = url, np.random.default_rng(number), 0
        self.category = CATEGORIES[number % len(CATEGORIES)]
        self.first: list[float] = []
        self.done: list[float] = []
        self.asked = self.cancelled = self.drawings = 0
        self.errors: list[str] = []

    async def ask(self, link: Any, strokes: list[Any], deadline: float) -> None:
        """Send a request and read its answer until it is done or the deadline has come."""
        self.number += 1
        self.asked += 1
        began = time.perf_counter()
        request = {"id": self.number, "do": "complete", "strokes": strokes, "category": self.category, "n": 9}
        await link.send(json.dumps(request | {"seed": self.number}))
        heard = False
        while True:
            try:
                left = max(deadline - time.perf_counter(), 0.001)
                answer = json.loads(await asyncio.wait_for(link.recv(), left))
            except TimeoutError:
                self.cancelled += 1
                return
            if answer.get("id") != self.number:
                continue  # of the request before
            if answer["type"] == "points" and not heard:
                heard = True
                self.first.append(time.perf_counter() - began)
            elif answer["type"] == "done":
                self.done.append(time.perf_counter() - began)
                self.drawings += len(answer["drawings"])
                return
            elif answer["type"] == "error":
                self.errors.append(answer["code"])
                return

    async def draw(self, seconds: float, pause: float) -> None:
        await asyncio.sleep(float(self.generator.uniform(0.0, max(pause, 0.2))))
        end = time.perf_counter() + seconds
        async with connect(self.url, max_size=None) as link:
            while time.perf_counter() < end:
                strokes = doodle(self.generator)
                for count in range(1, len(strokes) + 1):
                    until = time.perf_counter() + (pause if pause else 60.0)
                    await self.ask(link, strokes[:count], until)
                    if pause:
                        await asyncio.sleep(max(until - time.perf_counter(), 0.0))
                    if time.perf_counter() >= end:
                        return


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_server(continuous: bool, checkpoint: str | None) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(port)]
    command += [] if continuous else ["--one-at-a-time"]
    command += ["--checkpoint", checkpoint] if checkpoint else []
    # As app.py sets them: before NumPy is loaded.
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | settings)
    url = f"ws://127.0.0.1:{port}/live"

    async def answers() -> bool:
        try:
            async with connect(url):
                return True
        except (OSError, WebSocketException):  # not up yet, or up without the live route
            return False

    for _ in range(600):
        if asyncio.run(answers()):
            return process, url
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) * 1e3 if values else float("nan")


async def crowd(url: str, clients: int, seconds: float, pause: float) -> dict[str, Any]:
    people = [Client(url, number) for number in range(clients)]
    began = time.perf_counter()
    await asyncio.gather(*(person.draw(seconds, pause) for person in people))
    took = time.perf_counter() - began
    first = [value for person in people for value in person.first]
    done = [value for person in people for value in person.done]
    asked = sum(person.asked for person in people)
    return {
        "clients": clients,
        "asked": asked,
        "first_p50_ms": percentile(first, 50),
        "first_p95_ms": percentile(first, 95),
        "done_p50_ms": percentile(done, 50),
        "done_p95_ms": percentile(done, 95),
        "cancelled": sum(person.cancelled for person in people),
        "unanswered": asked - len(first) - sum(len(person.errors) for person in people),
        "errors": sorted({error for person in people for error in person.errors}),
        "drawings_per_second": sum(person.drawings for person in people) / took,
    }


def show(name: str, found: dict[str, Any]) -> None:
    print(
        f"{name:<34}{found['clients']:>8}{found['asked']:>7}"
        f"{found['first_p50_ms']:>9.0f}{found['first_p95_ms']:>7.0f}{found['done_p50_ms']:>9.0f}"
        f"{found['done_p95_ms']:>7.0f}{found['cancelled']:>10}{found['unanswered']:>11}"
        f"{found['drawings_per_second']:>12.1f}  {' '.join(found['errors'])}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each crowd [20]")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    parser.add_argument("--one-at-a-time", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_page(options.serve, not options.one_at_a_time, options.checkpoint)
        return
    results = []
    print(f"{'':<34}{'clients':>8}{'asked':>7}{'first p50':>9}{'p95':>7}{'all p50':>9}{'p95':>7}", end="")
    print(f"{'cancelled':>10}{'unanswered':>11}{'drawings/s':>12}")
    for continuous in (True, False):
        mode = "continuous batching" if continuous else "one request at a time"
        process, url = start_server(continuous, options.checkpoint)
        try:
            asyncio.run(crowd(url, 2, 3.0, 0.0))  # compilers and caches
            for clients in options.clients:
                results.append(
                    {"mode": mode, "pause": PAUSE} | asyncio.run(crowd(url, clients, options.seconds, PAUSE))
                )
                show(mode, results[-1])
            most = max(options.clients)
            results.append({"mode": mode, "pause": 0.0} | asyncio.run(crowd(url, most, options.seconds, 0.0)))
            show(f"{mode}, without pause", results[-1])
        finally:
            process.terminate()
            process.wait(20)
    speeds = [found["drawings_per_second"] for found in results if not found["pause"]]
    print(f"\nthroughput, continuous batching / one request at a time: {speeds[0] / speeds[1]:.2f}")
    if options.json:
        options.json.write_text(json.dumps({"runs": results}, indent=1))


if __name__ == "__main__":
    main()
