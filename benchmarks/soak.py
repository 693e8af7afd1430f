"""A class on the page's server for a quarter of an hour: a real server process, and clients that draw like people.

    python -m benchmarks.soak                       # 32 clients, 15 minutes
    python -m benchmarks.soak --minutes 5 --kill 45 # kill -9 and start again every 45 seconds

Each client draws a stroke every 1.5 seconds or so and asks for something after each: endings mostly, also variations,
comparisons, blends, free drawings, a look inside, guesses. What has not come by the next stroke is cancelled, in one
of three ways; the last stroke of a drawing is waited for. Beside them one client reads a byte a second, one reads
nothing at all, one opens connections and drops them in the middle of an answer, and now and then a page is loaded.

Nothing may be lost or remain unanswered; each minute's 95th percentile to the first point must stay near the usual
one; the server's memory, file descriptors and threads must stay where they were once it is warm. Exits with 1 where one
of these fails. The clients are a process of their own; their share of the processor is told as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from benchmarks.fuzz import HELLO, KEY, Served, exchange, frame, http, whole
from benchmarks.serving import CATEGORIES, doodle

PAUSE = (1.0, 2.0)
"""Seconds between strokes."""
MIX = {"complete": 58, "vary": 10, "compare": 10, "blend": 8, "draw": 8, "inspect": 4, "guess": 2}
"""What is asked for, of a hundred times. A guess reads a drawing once for each category: some 0.35 s of one core."""
WARMING = 6
"""Guesses at long drawings, two at once, before the clock starts: they take the most memory at a time."""
PATIENT = 30.0
"""Seconds after which what is waited for counts as unanswered."""
RETRY = (0.5, 1.0, 2.0, 4.0)
"""Seconds after which a client tries to connect again, as the page does."""
WARM_MINUTES = 2
STEADY, ALLOWANCE = 3.0, 100.0
"""No minute's 95th percentile may be more than so many times the usual minute's, and so many milliseconds."""
MOST_GROWTH = {"rss_mb": 40.0, "files": 40, "threads": 6}
"""From the minutes after it is warm to the last ones."""
LOOK_SECONDS = 2.0
PAGES = ("other pages", "other pages whole")
"""Asked for, and loaded to their end."""


# ---------------------------------------------------------------------------------------------------
# Clients


class Tally:
    """What the clients saw in the minute that runs."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.done: list[float] = []
        self.seen: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def line(self, minute: int) -> str:
        """This minute as JSON; a new one begins."""
        cpu = time.process_time()
        found = {
            "minute": minute,
            **{name: self.seen[name] for name in ("asked", "done", "cancelled", "unanswered", "again", "connected")},
            "errors": dict(self.errors),
            "others": {name: n for name, n in self.seen.items() if name.startswith("other")},
            "first_p50_ms": percentile(self.first, 50),
            "first_p95_ms": percentile(self.first, 95),
            "done_p50_ms": percentile(self.done, 50),
            "done_p95_ms": percentile(self.done, 95),
            "clients_cpu": round(cpu, 2),
        }
        for each in (self.first, self.done, self.seen, self.errors):
            each.clear()
        return json.dumps(found)


def percentile(values: list[float], share: float) -> float | None:
    return round(float(np.percentile(values, share)) * 1e3, 1) if values else None


class Person:
    """One visitor, with the two connections of a page: one for endings and variations, one for everything else."""

    def __init__(self, host: str, number: int, tally: Tally) -> None:
        self.host, self.tally = host, tally
        self.dice = np.random.default_rng(number)
        self.category = CATEGORIES[number % len(CATEGORIES)]
        self.links: dict[bool, Any] = {}
        self.number = 0

    async def link(self, main: bool) -> Any:
        """The open connection, or a new one, as soon as there can be one."""
        tries = 0
        while self.links.get(main) is None:
            try:
                opening = connect(f"ws://{self.host}/live", max_size=None, open_timeout=10, compression=None)
                self.links[main] = await opening
                self.tally.seen["connected"] += 1
            except (OSError, WebSocketException, TimeoutError):
                await asyncio.sleep(RETRY[min(tries, len(RETRY) - 1)])
                tries += 1
        return self.links[main]

    def request(self, do: str, strokes: list[Any], others: list[Any]) -> str:
        self.number += 1
        fields: dict[str, Any] = {"id": self.number, "do": do, "seed": self.number, "category": self.category}
        if do == "blend":
            fields |= {"drawings": [strokes, others], "how": "strip", "category": None}
        elif do == "compare":
            fields |= {"strokes": strokes, "temperatures": [k / 10 for k in range(1, 11)]}
        elif do == "draw":
            fields |= {"n": 9}
        else:
            fields |= {"strokes": strokes}
        if do in ("complete", "vary"):
            fields |= {"n": 9}
        return json.dumps(fields)

    async def ask(self, do: str, strokes: list[Any], others: list[Any], seconds: float, *, wait: bool) -> None:
        """Ask and read until answered, or, unless it is to be waited for, until it is time for the next stroke."""
        text, seen = self.request(do, strokes, others), self.tally.seen
        seen["asked"] += 1
        main, mark = do in ("complete", "vary"), f'{{"id":{self.number},"type":"'
        began, heard, again = time.perf_counter(), False, False
        limit = began + (PATIENT if wait else seconds)
        while True:
            try:
                link = await self.link(main)
                if again:
                    limit = max(limit, time.perf_counter() + PATIENT)
                await link.send(text)
                while True:
                    message = await asyncio.wait_for(link.recv(), max(limit - time.perf_counter(), 0.001))
                    if not message.startswith(mark):
                        continue  # of the request before
                    if not heard and message.startswith('points"', len(mark)):
                        heard = True
                        if not again:
                            self.tally.first.append(time.perf_counter() - began)
                    elif message.startswith('done"', len(mark)):
                        seen["done"] += 1
                        if not again:
                            self.tally.done.append(time.perf_counter() - began)
                        return
                    elif message.startswith('error"', len(mark)):
                        self.tally.errors[json.loads(message)["code"]] += 1
                        return
            except TimeoutError:
                if wait:
                    seen["unanswered"] += 1
                else:
                    seen["cancelled"] += 1
                    if self.number % 3 == 0 and self.links.get(main):
                        with contextlib.suppress(WebSocketException):
                            await self.links[main].send(json.dumps({"cancel": self.number}))
                return
            except (WebSocketException, OSError):  # the server has gone: connect and ask again
                self.links[main] = None
                again = True
                seen["again"] += 1

    async def draw(self, end: float) -> None:
        await asyncio.sleep(float(self.dice.uniform(0.0, 2.0)))
        while time.perf_counter() < end:
            if self.dice.random() < 0.1:  # a reload
                self.tally.seen[PAGES[0]] += 1
                answer = await exchange(self.host, http(self.host, "GET", "/"), 20, whole)
                self.tally.seen[PAGES[1]] += answer.startswith(b"HTTP/1.1 200")
            strokes, others = doodle(self.dice), doodle(self.dice)
            do = str(self.dice.choice([*MIX], p=np.array([*MIX.values()]) / sum(MIX.values())))
            for count in range(1, len(strokes) + 1):
                began, pause = time.perf_counter(), float(self.dice.uniform(*PAUSE))
                last = count == len(strokes) or time.perf_counter() + pause >= end
                await self.ask(do, strokes[:count], others, pause, wait=last)
                if last:
                    break
                await asyncio.sleep(max(began + pause - time.perf_counter(), 0.0))
        await self.leave()

    async def leave(self) -> None:
        for link in self.links.values():
            if link is not None:
                with contextlib.suppress(WebSocketException, OSError):
                    await link.close()


async def bad_reader(host: str, end: float, tally: Tally, pause: float | None) -> None:
    """Asks for long answers and reads a byte a second, or nothing; begins again when it is cut.

    What "inspect" tells of 250 points is some 900 kB and little work: it is room that these take, not time.
    """
    name, port = host.rsplit(":", 1)
    kind = "other slow" if pause else "other deaf"
    while time.perf_counter() < end:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(raw, (name, int(port)))
            await loop.sock_sendall(raw, (HELLO + KEY + b"\r\n").replace(b"{host}", host.encode()))
            await asyncio.wait_for(loop.sock_recv(raw, 129), 5)
            tally.seen[f"{kind} opened"] += 1
            number = 0
            while time.perf_counter() < end:
                number += 1
                ask = {"id": number, "do": "inspect", "strokes": [[[k, k * k % 300] for k in range(250)]]}
                await asyncio.wait_for(loop.sock_sendall(raw, frame(json.dumps(ask).encode())), 120)
                tally.seen[f"{kind} asked"] += 1
                if pause and not await asyncio.wait_for(loop.sock_recv(raw, 1), 60):
                    break
                await asyncio.sleep(pause or 1.0)
        except (OSError, TimeoutError):
            tally.seen[f"{kind} was cut"] += 1
            await asyncio.sleep(1.0)
        finally:
            raw.close()


async def dropper(host: str, end: float, tally: Tally) -> None:
    """Opens connections, asks for nine endings and is gone in the middle of the answer."""
    name, port = host.rsplit(":", 1)
    dice = np.random.default_rng(8)
    hello = (HELLO + KEY + b"\r\n").replace(b"{host}", host.encode())
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection(name, int(port))
            writer.write(hello)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            writer.write(frame(json.dumps({"id": 1, "do": "complete", "strokes": doodle(dice)[:2], "n": 9}).encode()))
            await asyncio.sleep(float(dice.uniform(0.0, 0.1)))
            writer.transport.abort()
            tally.seen["other dropped"] += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.2)


async def warm(host: str) -> None:
    """Fill what the server keeps anyway: each of its threads holds on to the memory of its largest piece of work."""

    async def one(number: int) -> None:
        strokes = doodle(np.random.default_rng(number)) + doodle(np.random.default_rng(number + 100))
        asking = Person(host, number, Tally())
        for do in ("guess", "inspect", "vary"):
            await asking.ask(do, strokes, strokes, PATIENT, wait=True)
        await asking.leave()

    for _ in range(WARMING):
        await asyncio.gather(one(1), one(2))


async def load(host: str, clients: int, minutes: float) -> None:
    """All clients; a line of JSON for each minute on standard output."""
    tally = Tally()
    end = time.perf_counter() + minutes * 60

    async def tell() -> None:
        minute = 0
        while (left := end - time.perf_counter()) > 0:
            await asyncio.sleep(min(60.0, left))
            minute += 1
            print(tally.line(minute), flush=True)

    telling = asyncio.create_task(tell())
    await asyncio.gather(
        *(Person(host, number, tally).draw(end) for number in range(clients)),
        bad_reader(host, end, tally, 1.0),
        bad_reader(host, end, tally, None),
        dropper(host, end, tally),
    )
    await telling
    print(tally.line(-1), flush=True)  # what was still waited for when the time was over


# ---------------------------------------------------------------------------------------------------
# The run


class Watch:
    """The server's resources, every few seconds, and the process that is killed and started again."""

    def __init__(self, server: Served, kill: float | None) -> None:
        self.server, self.kill = server, kill
        self.samples: list[dict[str, float]] = []
        self.killed: list[float] = []
        """Seconds that each kill cost until it was ready again."""
        self.began, self.stopped = time.monotonic(), threading.Event()
        self.threads = [threading.Thread(target=self.look, daemon=True)]
        if kill:
            self.threads.append(threading.Thread(target=self.killing, daemon=True))
        for thread in self.threads:
            thread.start()

    def look(self) -> None:
        while not self.stopped.wait(LOOK_SECONDS):
            with contextlib.suppress(OSError, TypeError):  # killed just now
                self.samples.append({"at": time.monotonic() - self.began} | self.server.resources())

    def killing(self) -> None:
        while not self.stopped.wait(self.kill):
            os.kill(self.server.process.pid, signal.SIGKILL)
            self.server.process.wait()
            began = time.monotonic()
            self.server.start()
            self.server.wait()
            self.killed.append(round(time.monotonic() - began, 1))

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def minute(self, number: int) -> dict[str, float]:
        """The middle of a minute's samples."""
        chosen = [sample for sample in self.samples if (number - 1) * 60 <= sample["at"] < number * 60]
        if not chosen:
            return {"rss_mb": float("nan"), "files": float("nan"), "threads": float("nan")}
        return {name: statistics.median(sample[name] for sample in chosen) for name in ("rss_mb", "files", "threads")}


def faults(minutes: list[dict[str, Any]], rest: dict[str, Any], watch: Watch) -> list[str]:
    """Which bounds were broken."""
    found = []
    everything = [*minutes, rest]
    unanswered = sum(each["unanswered"] for each in everything)
    if unanswered:
        found.append(f"{unanswered} requests were not answered in {PATIENT:g} s.")
    asked, ended = (
        sum(each["asked"] for each in everything),
        sum(
            each["done"] + each["cancelled"] + each["unanswered"] + sum(each["errors"].values()) for each in everything
        ),
    )
    if asked != ended:
        found.append(f"{asked} were asked and {ended} ended.")
    for each in everything:
        if each["errors"]:
            found.append(f"minute {each['minute']}: errors {each['errors']}.")
    # Over all: a page may be asked for in one minute and come in the next.
    pages, whole_pages = (sum(each["others"].get(name, 0) for each in everything) for name in PAGES)
    if pages != whole_pages and not watch.kill:
        found.append(f"of {pages} pages {whole_pages} were loaded.")
    warm = [each for each in minutes[WARM_MINUTES:] if each["first_p95_ms"] is not None]
    if warm and not watch.kill:
        usual = statistics.median(each["first_p95_ms"] for each in warm)
        for each in warm:
            if each["first_p95_ms"] > STEADY * usual + ALLOWANCE:
                found.append(f"minute {each['minute']}: 95% had a first point in {each['first_p95_ms']:.0f} ms.")
    if len(warm) >= 4 and not watch.kill:
        part = max(2, len(warm) // 4)
        for name, most in MOST_GROWTH.items():
            before = statistics.mean(each[name] for each in warm[:part])
            after = statistics.mean(each[name] for each in warm[-part:])
            if after - before > most:
                found.append(f"{name} went from {before:.0f} to {after:.0f}.")
    if watch.kill:
        if not watch.killed:
            found.append("The server was never killed.")
        if sum(each["done"] for each in minutes[-1:]) == 0:
            found.append("Nothing was answered in the last minute.")
    elif watch.server.process.poll() is not None:
        found.append("The server has ended.")
    return found


def show(each: dict[str, Any]) -> None:
    def number(name: str) -> str:
        return "-" if each[name] is None else f"{each[name]:.0f}"

    print(
        f"{each['minute']:>6}{each['asked']:>7}{each['done']:>7}{each['cancelled']:>10}{each['unanswered']:>11}"
        f"{sum(each['errors'].values()):>7}{each['again']:>6}{number('first_p50_ms'):>10}{number('first_p95_ms'):>6}"
        f"{number('done_p50_ms'):>9}{number('done_p95_ms'):>7}{each['rss_mb']:>8.1f}{each['files']:>6.0f}"
        f"{each['threads']:>8.0f}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--kill", type=float, metavar="SECONDS", help="kill -9 and start again so often")
    parser.add_argument("--checkpoint", help="network that answers [the shipped one]")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--load", metavar="HOST:PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        asyncio.run(load(options.load, options.clients, options.minutes))
        return 0
    server = Served(options.checkpoint).wait()
    asyncio.run(warm(server.host))
    idle = server.resources()
    command = [sys.executable, "-m", "benchmarks.soak", "--load", server.host]
    command += ["--clients", str(options.clients), "--minutes", str(options.minutes)]
    # Sums of the clients' own are small: one thread each is enough.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    clients = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    watch = Watch(server, options.kill)
    print(f"{'minute':>6}{'asked':>7}{'done':>7}{'cancelled':>10}{'unanswered':>11}{'errors':>7}{'again':>6}", end="")
    print(f"{'first p50':>10}{'p95':>6}{'all p50':>9}{'p95':>7}{'MB':>8}{'files':>6}{'threads':>8}", flush=True)
    minutes: list[dict[str, Any]] = []
    rest: dict[str, Any] = {}
    try:
        for line in clients.stdout or []:
            told = json.loads(line)
            if told["minute"] < 0:
                rest = told
                continue
            minutes.append(told | watch.minute(told["minute"]))
            show(minutes[-1])
        clients.wait(60)
        watch.stop()
        time.sleep(5)
        left = server.resources() if server.process.poll() is None else {}
        used = os.times()
        if not rest:
            raise RuntimeError("The clients have ended early.")
        broken = faults(minutes, rest, watch)
    finally:
        clients.kill()
        watch.stopped.set()
        server.stop()
    others = Counter[str]()
    for each in [*minutes, rest]:
        others.update(each["others"])
    again, seconds = sum(each["again"] for each in minutes), rest["clients_cpu"]
    print(f"idle before: {idle}; five seconds after: {left}")
    print(f"others: {dict(others)}")
    print(f"the clients took {seconds:.0f} s of the processor in {options.minutes:g} minutes")
    if options.kill:
        print(f"killed {len(watch.killed)} times, ready again after {watch.killed} s; asked again: {again}")
    for fault in broken:
        print(f"  {fault}")
    print("bounds broken" if broken else "all bounds held")
    if options.json:
        about = {"clients": options.clients, "minutes": minutes, "rest": rest, "idle": idle, "after": left}
        about |= {"others": others, "killed": watch.killed, "broken": broken, "children_cpu": used.children_user}
        options.json.write_text(json.dumps(about, indent=1))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
