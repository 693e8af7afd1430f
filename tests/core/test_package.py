"""The package as others get it: documented, typed, and whole when it is installed without the repository."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sketch_core
from tests.conftest import needs

ROOT = Path(__file__).resolve().parents[2]
# What the compiled kernels do is said in kernels.py, where they are called.
MODULES = sorted(path for path in (ROOT / "sketch_core").glob("*.py") if path.stem != "compiled")


def public(tree: ast.AST, inside: str = ""):
    """(name, node) of public functions, classes and their methods, as far as they are no one-line properties."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield f"{inside}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node, f"{node.name}.")


def evident(node: ast.AST) -> bool:
    """One line that tells all, such as a property's, or a method of a protocol, whose class says what it is."""
    if not isinstance(node, ast.FunctionDef) or len(node.body) != 1:
        return False
    only = node.body[0]
    return isinstance(only, ast.Return) or (isinstance(only, ast.Expr) and ast.unparse(only) == "...")


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_all_that_is_public_says_what_it_is(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    silent = [name for name, node in public(tree) if not ast.get_docstring(node) and not evident(node)]
    assert not silent


def test_public_names():
    assert set(sketch_core.__all__) <= set(dir(sketch_core))
    for name in sketch_core.__all__:
        thing = getattr(sketch_core, name)
        assert thing.__doc__, name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("sketch_core", "checkpoints"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.png"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(source / "dist"), "."]
    built = subprocess.run(command, check=False, cwd=source, capture_output=True, text=True, timeout=300)
    needs(built.returncode == 0, f"No wheel was built, perhaps for want of a network: {built.stderr[-300:]}")
    return next((source / "dist").glob("*.whl"))


def test_a_wheel_has_all_it_needs(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    network = f"sketch_core/checkpoints/{sketch_core.checkpoint.DEFAULT_NAME}"
    wanted = ["sketch_core/py.typed", "sketch_core/categories.txt"]
    wanted += [f"{network}/{file}" for file in ("config.json", "weights.safetensors", "README.md")]
    assert set(wanted) <= set(names)
    assert not [name for name in names if name.startswith(("app/", "tests/", "checkpoints/"))]
    assert wheel.stat().st_size < 8_000_000

    (tmp_path / "elsewhere").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "DUET_CHECKPOINTS"}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    script = (
        "import sketch_core, pathlib\n"
        "assert pathlib.Path(sketch_core.__file__).is_relative_to(pathlib.Path.cwd().parent / 'site')\n"
        "cat, = sketch_core.load().draw('cat', n=1)\n"
        "print(len(cat))"
    )
    for command in (
        ["-c", script],
        ["-m", "sketch_core", "sample", "--category", "cat", "-n", "1", "--out", "cat.svg"],
    ):
        done = subprocess.run(
            [sys.executable, *command],
            check=False,
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "cat.svg").read_text().startswith("<svg")
