"""The endpoints as a language model's tools. The package `mcp` holds back others, so it is on few machines."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from app import settings
from app.settings import Settings

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mcp_client.py"


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for arguments, environment in ((["--mcp"], {}), ([], {"DUET_MCP": "1"})):
        with pytest.raises(SystemExit) as stopped:
            settings.from_arguments(arguments, environment)
        said = capsys.readouterr().err.strip()
        assert stopped.value.code == 2 and "gradio[mcp]" in said and said.count("\n") == 0
    assert settings.from_arguments([], {}).mcp is False
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert settings.from_arguments(["--mcp"], {}).mcp is True


@pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason="Needs `pip install 'gradio[mcp]'`.")
def test_a_language_models_program_lists_and_calls_the_tools(tiny_sketcher):
    from app.server import launch
    from app.studio import Studio

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = launch(Studio(tiny_sketcher), Settings(port=port, mcp=True))
    try:
        url = f"http://127.0.0.1:{port}"
        done = subprocess.run(
            [sys.executable, EXAMPLE, url], check=False, capture_output=True, text=True, timeout=120
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()
        tools = [line.split(":")[0] for line in lines[:9]]
        assert tools == ["complete", "vary", "draw", "compare", "blend", "inspect", "guess", "categories", "models"]
        assert lines[9].startswith("draw answer [[[") and lines[10].startswith("complete answer [[[")
        assert lines[11].startswith("draw error") and "unicorn" in lines[11]
        too_large = urllib.request.Request(f"{url}/gradio_api/mcp/", b"a" * 1_000_000)
        with pytest.raises(urllib.error.HTTPError, match="413"):
            urllib.request.urlopen(too_large)
    finally:
        served.close()
