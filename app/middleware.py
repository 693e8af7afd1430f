"""What is done to every answer of the page's server, as pure ASGI middleware."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HTML = b"text/html"
HEAD = b"<head>"


class FirstScript:
    """Puts a script at the top of ``<head>`` of the page (and of nothing else), so that it runs before Gradio's own.

    ``launch(head=...)`` comes too late for some things, as Gradio's front end puts it in place itself, after it has
    chosen its language.
    """

    def __init__(self, app: ASGIApp, script: str) -> None:
        self.app = app
        self.addition = HEAD + b"<script>" + script.encode() + b"</script>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = ("", "/", scope.get("root_path", ""), f"{scope.get('root_path', '')}/")
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in page:
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] | None = None
        body = b""

        async def keep(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and dict(message["headers"]).get(
                b"content-type", b""
            ).startswith(HTML):
                start = dict(message)
                return
            if message["type"] != "http.response.body" or start is None:
                await send(message)
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            whole = body.replace(HEAD, self.addition, 1)
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            await send(start | {"headers": [*headers, (b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, keep)
