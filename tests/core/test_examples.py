"""The scripts of examples/ run as they stand, with the shipped checkpoint. (Those that call a page: tests/app.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sketch_core import quickdraw

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "complete": (["complete.png"], "8 endings"),
    "vary": (["vary.png"], "z has 128 numbers"),
    "compare": (["compare.png"], "τ 0.25"),
    "interpolate": (["morph.gif", "morph.png"], "9 drawings"),
}


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}", *arguments],
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script(name, tmp_path):
    files, says = SCRIPTS[name]
    assert says in run(name, str(tmp_path))
    for file in files:
        content = (tmp_path / file).read_bytes()
        assert content.startswith((b"\x89PNG", b"GIF8")) and 5_000 < len(content) < 100_000
        assert (ROOT / "examples" / "pictures" / file).stat().st_size < 100_000


def test_inspecting_a_step():
    said = run("inspect_step", "1")
    rows = [line.split() for line in said.splitlines()]
    assert sum(row[:1] in (["0"], ["1"], ["2"]) for row in rows) == 3, "three points, a row of losses each"
    shares = [float(row[0]) for row in rows[-5:]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1.001


def test_teaching(tmp_path):
    said = run("teach", str(ROOT / "examples" / "letters.ndjson"), str(tmp_path), "2")
    assert "['letter']: 24 drawings to learn from, 6 others" in said and "old categories" in said
    assert (tmp_path / "taught.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "taught" / "weights.safetensors").is_file()


def test_the_letters():
    sets = quickdraw.load_sets(ROOT / "examples" / "letters.ndjson")
    assert sum(map(len, sets.values())) == 30 and next(iter(sets.values())).categories == ["letter"]
