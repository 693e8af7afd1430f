"""Connections that cost no more than they ask for: what uvicorn leaves open to whoever drips, stalls or never reads.

uvicorn waits for ever for the rest of a request, and for a reader of what it has written; it answers pings without
end, and joins as many fragments as come. :func:`harden` puts bounds to these, on connections from then on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
PATIENCE = 3
"""Looks at a connection that find it waiting for the same thing, after which it is cut."""
GOODBYE_SECONDS = 5.0
"""How long a connection may take to flush what it has, once it is closed."""
MAX_UNREAD = 2_000_000
"""Bytes that wait for a reader on one live connection. Messages stop at 64 kB; answers to pings do not."""
MAX_FRAGMENTS = 10_000


class Hurried:
    """A connection over HTTP that is cut when its client neither asks, nor sends what it announced, nor reads."""

    cycle: Any
    transport: Any
    loop: asyncio.AbstractEventLoop

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._before: tuple[Any, int] | None = None
        self._looks = 0
        self.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        transport = self.transport
        if transport.is_closing() and not transport.get_write_buffer_size():
            return
        if transport.get_protocol() is not self:  # it has become a WebSocket
            return
        cycle, unread = self.cycle, transport.get_write_buffer_size()
        waits = transport.is_closing() or cycle is None or cycle.response_complete or cycle.more_body or unread > 0
        self._looks = self._looks + 1 if waits and self._before == (cycle, unread) else 0
        self._before = (cycle, unread)
        if self._looks >= PATIENCE:
            transport.abort()
            return
        self.loop.call_later(LOOK_SECONDS, self._look)


class Bounded:
    """A WebSocket that is cut when its client does not read, however it keeps the connection open."""

    transport: Any
    loop: asyncio.AbstractEventLoop
    frames: list[bytes]

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # a handshake that its parser could not bear; uvicorn would lose count of it
            log.info("A connection was cut: %s.", type(error).__name__)
            self.transport.abort()

    def handle_cont(self, event: Any) -> None:
        if len(self.frames) > MAX_FRAGMENTS:
            self.transport.abort()
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        if self.transport.get_write_buffer_size() > MAX_UNREAD:
            self.transport.abort()
            return
        super().handle_ping()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)


def harden(config: Any, max_message: int) -> None:
    """Put bounds to a uvicorn server's connections.

    Args:
        config: its ``uvicorn.Config``, once loaded.
        max_message: bytes of a WebSocket message.
    """
    http, websocket = config.http_protocol_class, config.ws_protocol_class
    if {"connection_made"} <= set(dir(http)):
        config.http_protocol_class = type("HurriedHttp", (Hurried, http), {})
    if {"data_received", "handle_cont", "handle_ping", "keepalive_timeout"} <= set(dir(websocket)):
        config.ws_protocol_class = type("BoundedWebSocket", (Bounded, websocket), {})
    else:
        log.warning("This version of uvicorn has other WebSockets than known; slow readers are not cut.")
    config.ws_max_size = max_message
