"""The live path: a WebSocket on the page's own server, so that endings appear while they are drawn.

Messages are JSON objects. The page sends a request ``{"id", "do", "strokes", "category", "temperature",
"seed", "n", …}`` (:meth:`app.studio.Studio.check` knows all) or ``{"cancel": id}``; a new request cancels the one
before it on the same connection. Back come ``{"id", "type": "points", "rows": [[k, x, y, pen], ...]}`` (pen 0: a
stroke starts; 1: a line leads here; 2: drawing k has ended), then ``{"id", "type": "done", "drawings": [...]}``
("found" instead, for what draws nothing), or ``{"id", "type": "error", "code", "message"}``. Once the server stops,
an answer is finished, then the connection closed with 1012 ("service restart"): who asks again, does so on a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.limits import MOST_PAUSE, SLOW_DOWN, Door, client_of
from app.studio import Request, Row, Studio, StudioError

log = logging.getLogger(__name__)

MAX_MESSAGE = 262_144  # characters; 2,000 points with time and pressure are about 60,000
MAX_ID = 2**53 - 1
MAX_UNHEARD = 8
"""Answers of one connection that may wait to be read; until then nothing more is read of what it asks."""
RESTART = 1012
"""The code with which a connection is closed because the server stops."""
INTERNAL = "Something went wrong on the server; your drawing is safe, please try again."


def live_route(studio: Studio, door: Door, path: str = "/live") -> WebSocketRoute:
    """The route to add to the page's server."""
    conversations: set[Conversation] = set()
    door.on_closing.append(lambda: [conversation.leave_when_done() for conversation in conversations])

    async def live(socket: WebSocket) -> None:
        if door.closing:
            await socket.close(code=RESTART)
            return
        await socket.accept()
        if door.connections >= door.most:
            door.refused("other", "busy")
            await socket.send_text(json.dumps(error_message(None, "Many people are drawing right now.", "busy")))
            await socket.close(code=1013)
            return
        door.connections += 1
        conversation = Conversation(socket, studio, door)
        conversations.add(conversation)
        try:
            await conversation.talk()
        finally:
            conversations.discard(conversation)
            door.connections -= 1

    return WebSocketRoute(path, live)


def error_message(request_id: int | None, message: str, code: str) -> dict[str, Any]:
    return {"id": request_id, "type": "error", "code": code, "message": message}


def parse(text: str) -> dict[str, Any]:
    """A message as an object.

    Raises:
        StudioError: too large, not JSON, not an object, or without a proper id.
    """

    def refuse(name: str) -> None:
        raise StudioError(f"A message must not contain {name}.")

    if len(text) > MAX_MESSAGE:
        raise StudioError("This drawing is too large to send; please clear some of it.", "too_large")
    try:
        message = json.loads(text, parse_constant=refuse)
    except StudioError:
        raise
    except (ValueError, RecursionError) as error:
        raise StudioError("A message must be a JSON object.") from error
    if type(message) is not dict:
        raise StudioError("A message must be a JSON object.")
    number = message.get("cancel") if "cancel" in message else message.get("id")
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise StudioError("A message must have a whole number as its id.")
    return message


class Turn:
    """One request being answered. Points wait in a queue, so that a slow connection gets fewer, longer messages."""

    def __init__(self, request_id: int) -> None:
        self.id = request_id
        self.cancelled = threading.Event()
        self.news: asyncio.Queue[list[Row] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def tell(self, rows: list[Row] | None) -> None:
        """From any thread: new points, or None when there will be no more."""
        # The loop is closed only when the server stops; nobody is listening then.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.news.put_nowait, rows)

    def cancel(self) -> None:
        self.cancelled.set()
        self.news.put_nowait(None)


class Conversation:
    """What is said on one connection; at most one request is answered at a time."""

    def __init__(self, socket: WebSocket, studio: Studio, door: Door) -> None:
        self.socket = socket
        self.studio = studio
        self.door = door
        self.client = client_of(socket.scope)
        self.turn: Turn | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.leaving: set[asyncio.Task[None]] = set()

    async def talk(self) -> None:
        try:
            while True:
                event = await self.socket.receive()
                if event["type"] == "websocket.disconnect":
                    return
                await self.hear(event.get("text"))
        except WebSocketDisconnect:
            return
        finally:
            self.stop()

    def stop(self) -> None:
        if self.turn is not None:
            self.turn.cancel()
            self.turn = None

    async def hear(self, text: str | None) -> None:
        request_id, do, wait = None, None, 0.0
        try:
            if text is None:
                raise StudioError("A message must be a JSON object.")
            message = parse(text)
            if "cancel" in message:
                if self.turn is not None and self.turn.id == message["cancel"]:
                    self.stop()
                return
            request_id, do = message["id"], message.get("do")
            self.stop()
            if self.door.closing:
                self.leave_when_done()
                return
            wait = self.door.buckets.take(self.client)
            if wait:
                raise StudioError(SLOW_DOWN, "slow_down")
            request = self.studio.check(message)
        except StudioError as error:
            if request_id is None:  # what cannot be read counts as well
                wait = self.door.buckets.take(self.client)
            self.door.refused(str(do), error.code)
            await self.say(error_message(request_id, str(error), error.code))
            # Nobody reads what comes faster: whoever floods the connection waits, and finds a token after that.
            await asyncio.sleep(min(wait, MOST_PAUSE))
            return
        except Exception:  # a fault of ours must not cost the connection
            log.exception("A message could not be checked")
            await self.say(error_message(request_id, INTERNAL, "internal"))
            return
        while len(self.tasks) >= MAX_UNHEARD:
            await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
        self.turn = Turn(request_id)
        task = asyncio.create_task(self.answer(self.turn, request))
        self.tasks.add(task)
        self.door.answering += 1
        task.add_done_callback(self.answered)

    def answered(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.door.answering -= 1
        if self.door.closing:
            self.leave_when_done()

    def leave_when_done(self) -> None:
        """Hang up, unless something is being answered: then afterwards."""
        if not self.tasks:
            leaving = asyncio.create_task(self.hang_up())
            self.leaving.add(leaving)  # or it might be collected while it waits
            leaving.add_done_callback(self.leaving.discard)

    async def hang_up(self) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # they have left already
            await self.socket.close(code=RESTART)

    async def answer(self, turn: Turn, request: Request) -> None:
        try:
            future = self.studio.start(request, turn.tell, turn.cancelled.is_set)
            future.add_done_callback(lambda _: turn.tell(None))
            more = True
            while more:
                batches = [await turn.news.get()]
                while not turn.news.empty():
                    batches.append(turn.news.get_nowait())
                more = None not in batches
                rows = [row for batch in batches if batch for row in batch]
                if turn.cancelled.is_set():
                    return
                if rows:
                    await self.say({"id": turn.id, "type": "points", "rows": rows})
            drawings = future.result()
            if not turn.cancelled.is_set():
                name = "drawings" if request.draws else "found"
                await self.say({"id": turn.id, "type": "done", name: drawings})
        except StudioError as error:
            if not turn.cancelled.is_set():
                await self.say(error_message(turn.id, str(error), error.code))
        except Exception:
            log.exception("A live request failed")
            if not turn.cancelled.is_set():
                await self.say(error_message(turn.id, INTERNAL, "internal"))

    async def say(self, message: dict[str, Any]) -> None:
        try:
            await self.socket.send_text(json.dumps(message, separators=(",", ":")))
        except (WebSocketDisconnect, RuntimeError):  # they have left; the reader notices too
            self.stop()
