"""The real page on a free port, with a tiny network behind it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sketch_core.__main__ import main

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with an imported model that cannot vary, and a checkpoint that is none."""
    folder = tmp_path_factory.mktemp("models")
    tiny = Path(__file__).parent / "fixtures" / "tiny.gen.json"
    assert main(["checkpoints", "import", str(tiny), "--to", str(folder)]) == 0
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    return folder


@pytest.fixture(scope="session")
def server(tiny_sketcher, models) -> Iterator[str]:
    from app.server import launch
    from app.settings import Settings
    from app.studio import Studio

    def others() -> dict[str, Path]:
        return {folder.name: folder for folder in sorted(models.iterdir())}

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(port=port, requests_per_minute=0)  # tests ask faster than people
    served = launch(Studio(tiny_sketcher, others=others), settings)
    yield f"http://127.0.0.1:{port}"
    served.close()
