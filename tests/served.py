"""The real page on a free port, with a tiny network behind it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


@pytest.fixture(scope="session")
def server(tiny_sketcher) -> Iterator[str]:
    from app.server import launch
    from app.studio import Studio

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = launch(Studio(tiny_sketcher), port=port, block=False)
    yield f"http://127.0.0.1:{port}"
    page.close()
