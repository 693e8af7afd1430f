"""The page below a proxy's prefix: all it asks for is there, whether its address ends in a slash or not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.browser.test_page import EAR, HEAD, browser, draw, endings, open_page  # noqa: F401 (a fixture)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def stripping_proxy(prefix: str, to: int) -> Iterator[int]:
    """A proxy as simple as can be: takes the prefix off, also where no slash follows; one request a connection."""
    door = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def pass_on(visitor: socket.socket) -> None:
        with suppress(OSError), visitor, socket.create_connection(("127.0.0.1", to)) as server:
            data = b""
            while b"\r\n\r\n" not in data:
                more = visitor.recv(65536)
                if not more:
                    return
                data += more
            head, rest = data.split(b"\r\n\r\n", 1)
            found = re.match(rb"(\w+) " + prefix.encode() + rb"(/[^ ]*|\?[^ ]*|) ", head)
            if found is None:  # nothing of ours is outside
                visitor.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            path = found[2] if found[2].startswith(b"/") else b"/" + found[2]
            head = found[1] + b" " + path + b" " + head[found.end() :]
            if b"websocket" not in head.lower():
                head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head) + b"\r\nConnection: close"
            server.sendall(head + b"\r\n\r\n" + rest)
            back = threading.Thread(target=pump, args=(server, visitor), daemon=True)
            back.start()
            pump(visitor, server)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=pass_on, args=(door.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield door.getsockname()[1]
    door.close()


@pytest.mark.parametrize("strips", [True, False], ids=["stripped", "left"])
def test_the_page_finds_everything_below_a_prefix(browser, tiny_sketcher, strips):  # noqa: F811
    from app.server import launch
    from app.settings import Settings
    from app.studio import Studio

    port = free_port()
    settings = Settings(port=port, root_path="/draw", requests_per_minute=0, trusted_proxies="127.0.0.1")
    served = launch(Studio(tiny_sketcher), settings)
    page = browser.new_page()
    asked, failed = [], []
    page.on("request", lambda made: asked.append(made.url))
    page.on("websocket", lambda link: asked.append(link.url.replace("ws:", "http:")))
    page.on("pageerror", lambda error: failed.append(str(error)))
    try:
        with stripping_proxy("/draw", port) as proxy:
            home = f"http://127.0.0.1:{proxy if strips else port}/draw"
            open_page(page, home)
            assert page.url == f"{home}/", "or all that is relative to it would be looked for beside it"
            draw(page, HEAD)
            draw(page, EAR)
            assert endings(page)
            found = page.evaluate("() => window.doodleDuet.ask({do: 'draw', n: 1})")  # over the other connection
            assert len(found["drawings"]) == 1
            assert page.evaluate("() => document.querySelector('a[href^=\"models/\"]').href") == f"{home}/models/tiny"
            assert len(page.evaluate("() => fetch('models').then((answer) => answer.json())")) == 1
    finally:
        page.close()
        served.close()
    assert asked.count(f"{home}/live") >= 2 and not failed
