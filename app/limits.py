"""Who may come in and how often: connections, requests a minute from one address, and nobody once the server stops."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.studio import STOPPING

PAGES_CONNECTIONS = 2
"""Connections that one page holds at most: for the endings, and for all other modes."""
LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
MAX_CLIENTS = 10_000
"""Addresses that are remembered; the one heard of longest ago makes room."""
MOST_PAUSE = 1.0
"""Seconds for which a connection that asks too often is not listened to, at most."""
SLOW_DOWN = "You ask faster than this server answers; please slow down a little."


def client_of(scope: Scope) -> str:
    """Whose request it is: an IPv4 address, or the /64 network of an IPv6 one, of which a household has the whole.

    Where proxies are trusted, uvicorn has put the address there that they forward.
    """
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # no address: a socket in the file system
        return str(host)[:60]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


class Buckets:
    """A bucket of tokens for each client: filled steadily, emptied by requests. Of one thread, the server's loop.

    Args:
        per_minute: tokens a minute; 0 is no limit.
        burst: tokens that a full bucket holds.
        clients: buckets kept at most.
        clock: seconds.
    """

    def __init__(
        self,
        per_minute: int,
        burst: int,
        clients: int = MAX_CLIENTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate, self.burst, self.clients, self.clock = per_minute / 60, burst, clients, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when they were counted

    def __len__(self) -> int:
        return len(self._left)

    def take(self, client: str) -> float:
        """Take a token: 0.0, or the seconds until there is one (none is taken then)."""
        if not self.rate:
            return 0.0
        now = self.clock()
        left, counted = self._left.pop(client, (float(self.burst), now))
        left = min(self.burst, left + (now - counted) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[client] = (left if wait else left - 1, now)  # the latest last
        if len(self._left) > self.clients:
            self._left.popitem(last=False)
        return wait


class Door:
    """What the live route and the HTTP routes of one server share.

    Args:
        users: pages that may be open at once.
        requests_per_minute: from one address; 0 is no limit.
    """

    def __init__(self, users: int = 300, requests_per_minute: int = 0) -> None:
        self.most = users * PAGES_CONNECTIONS
        self.buckets = Buckets(requests_per_minute, max(1, requests_per_minute // 4))
        self.connections = 0
        """Live connections."""
        self.answering = 0
        """Live requests that are being answered."""
        self.closing = False
        """Whether the server is about to stop: nothing new is taken."""
        self.on_closing: list[Callable[[], Any]] = []
        """Told once it is, in the server's loop."""
        self.refused: Callable[[str, str], Any] = lambda do, outcome: None
        """Told of each request that was turned away here: what it was to do, and why."""

    def close(self) -> None:
        """Take nothing new from now on."""
        self.closing = True
        for tell in [*self.on_closing]:
            tell()


class Turnstile:
    """Lets requests that make work (POST, which is all of Gradio's) pass the door; pages and files come freely."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.door.closing:
            await _refuse(503, STOPPING, 1)(scope, receive, send)
            self.door.refused("http", "stopping")
            return
        wait = self.door.buckets.take(client_of(scope))
        if wait:
            await _refuse(429, SLOW_DOWN, wait)(scope, receive, send)
            self.door.refused("http", "slow_down")
            return
        await self.app(scope, receive, send)


def _refuse(status: int, sentence: str, wait: float) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status_code=status, headers={"Retry-After": str(math.ceil(wait))})
