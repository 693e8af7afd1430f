"""What no stranger gets: Gradio's doors that this page does not use, the server from another page, an answer unguarded.

:class:`Guard` stands outside everything else, so that its headers are on every answer, also on those that Gradio's or
Starlette's own middleware gives. docs/security.md tells what for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.limits import LOCAL_HOSTS

log = logging.getLogger(__name__)

API = "/gradio_api/"
USED = frozenset(
    "info openapi.json queue call run api heartbeat cancel reset startup-events app_id mcp login_check".split()  # noqa: SIM905
)
"""What comes after :data:`API` in addresses that the page and its clients use. The rest of Gradio's would take in
files, hand them out, fetch other addresses or tell of the server: none of it is needed here."""
CLOSED = ("/monitoring", "/runs", "/openapi.json", "/login", "/logout", "/dev")
"""Gradio's other doors that are shut."""
GUARDED = "duet.guarded"
MAX_ADDRESS = 4_000
"""Bytes of a path and of a query: a longer one is none of ours."""

# Gradio's front end needs inline scripts and styles and builds functions from its templates ('unsafe-eval'); all else
# is this server's own. Hugging Face shows Spaces in a frame.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self' https://huggingface.co https://*.hf.space"
)
SAFETY = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
FOREIGN = "A page of another address may not use this server; a proxy must pass the Host header on."
UNREADABLE = "These inputs do not fit this endpoint; /?view=api shows what it takes."
NOT_HERE = "This server answers to its own machine's names only; behind a proxy, set DUET_TRUSTED_PROXIES."


class Guard:
    """Adds a content security policy and the like to every answer over HTTP, and turns away what is not for us.

    Args:
        root_path: where a proxy puts the page.
        local_only: whether nobody but this machine is served. A page of the web whose name was made to lead to this
            machine ("DNS rebinding") then gives itself away by that name.
    """

    def __init__(self, app: ASGIApp, root_path: str = "", *, local_only: bool = False) -> None:
        self.app, self.root_path, self.local_only = app, urlsplit(root_path).path.rstrip("/"), local_only
        self.warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or GUARDED in scope:
            await self.app(scope, receive, send)
            return
        scope[GUARDED] = True  # as it stands outside everything, and inside as well until the server is set up
        foreign = is_foreign(scope)

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [
                    header
                    for header in message["headers"]
                    if not (foreign and header[0].startswith(b"access-control-"))
                ]
                message = dict(message) | {"headers": [*given, *SAFETY]}
            await send(message)

        accepted = False

        async def open_or_refuse(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not accepted:  # there is no such route
                await _refuse_socket(send, 404, "Not Found")
            else:
                await send(message)

        refusal = self.refusal(scope, foreign)
        if refusal is None:
            await self.app(scope, receive, add if scope["type"] == "http" else open_or_refuse)
        elif scope["type"] == "websocket":
            await _refuse_socket(send, *refusal)
        else:
            status, sentence = refusal
            await JSONResponse({"detail": sentence}, status_code=status)(scope, receive, add)

    def refusal(self, scope: Scope, foreign: bool) -> tuple[int, str] | None:
        """Why a request is turned away: the status and one sentence, or None if it is not."""
        if self.local_only and host_of(header(scope, b"host")) not in LOCAL_HOSTS:
            return 421, NOT_HERE
        if foreign and (scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")):
            if not self.warned:
                log.warning("A page of another address was refused; a proxy must pass the Host header on.")
            self.warned = True
            return 403, FOREIGN
        if len(scope.get("raw_path") or scope["path"]) > MAX_ADDRESS or len(scope["query_string"]) > MAX_ADDRESS:
            return 414, "This address is too long."
        path = scope["path"].removeprefix(self.root_path)
        if "\0" in path or not is_used(path):
            return 404, "Not Found"
        return None


async def _refuse_socket(send: Send, status: int, sentence: str) -> None:
    """An answer over HTTP to who asked for a WebSocket."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *SAFETY]
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": sentence.encode()})


def is_used(path: str) -> bool:
    """Whether an address is one of ours, or one of Gradio's that is used here."""
    if path.startswith(API):
        return path.removeprefix(API).split("/", 1)[0] in USED
    return not any(path == closed or path.startswith(f"{closed}/") for closed in CLOSED)


def header(scope: Scope, name: bytes) -> str:
    """A request's header, empty if there is none."""
    return next((value.decode("latin1") for key, value in scope["headers"] if key == name), "")


def host_of(address: str) -> str | None:
    """The host of "host:port", or None if it has none."""
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname
    except ValueError:  # such as "["
        return None


def is_foreign(scope: Scope) -> bool:
    """Whether some other web page sent this: its address is none by which we were called.

    A proxy that does not pass Host on may tell it in X-Forwarded-Host, which no page can set for another's server
    without asking first.
    """
    if not any(key == b"origin" for key, _ in scope["headers"]):
        return False  # a program, or the page itself
    own = _names(host_of(header(scope, name).split(",")[0].strip()) for name in (b"host", b"x-forwarded-host"))
    return host_of(header(scope, b"origin")) not in own


def _names(hosts: Iterable[str | None]) -> set[str]:
    named = {host for host in hosts if host}
    return named | LOCAL_HOSTS if named & LOCAL_HOSTS else named


class Understandable:
    """Answers junk to Gradio's endpoints by one sentence, where these raise an exception or say nothing."""

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self.app, self.root_path = app, urlsplit(root_path).path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].removeprefix(self.root_path).startswith(API):
            await self.app(scope, receive, send)
            return
        started: Message | None = None
        held: Message | None = None

        async def tell(message: Message) -> None:
            nonlocal started, held
            if message["type"] == "http.response.start":
                started = message
                held = message if message["status"] == 500 else None
                if held is None:
                    await send(message)
                return
            body = message.get("body", b"")
            if held is not None:
                start, held = held, None
                if body == b'{"error":null}':  # too few inputs, or of a wrong kind
                    await JSONResponse({"error": UNREADABLE}, status_code=422)(scope, receive, send)
                    return
                await send(start)
            if body == b'event: error\ndata: {"error": null}\n\n':
                message = dict(message) | {"body": body.replace(b"null", f'"{UNREADABLE}"'.encode())}
            await send(message)

        try:
            await self.app(scope, receive, tell)
        except Exception as error:  # whatever Gradio makes of junk; a stranger must not fill the log with tracebacks
            log.info("A call could not be understood: %s.", type(error).__name__)
            if started is None:
                unknown = type(error).__name__ == "FnIndexInferError"
                status, sentence = (404, "There is no such endpoint.") if unknown else (400, UNREADABLE)
                await JSONResponse({"detail": sentence}, status_code=status)(scope, receive, send)
            elif held is None:
                await send({"type": "http.response.body", "body": b""})
