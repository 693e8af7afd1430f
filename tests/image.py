"""What the Dockerfile would do, done without Docker: ``sudo python -m tests.image`` (Linux, as root; minutes).

The files that .dockerignore lets through, a new user, a new environment, the Dockerfile's own variables and commands; a
file system that may not be written but for /tmp and the folder of compiled code, and a network that has nothing but the
loopback. Then its health check, the page, a live request, and a stop. ``--venv`` takes an environment that is there.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[1]
USER = "duet-image"
ASKED = {"id": 1, "do": "complete", "strokes": [[[100, 100], [200, 120], [260, 220]]], "category": "cat", "n": 9}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, their lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def copy(folder: Path) -> None:
    """What COPY would bring there."""
    for kind, words in instructions():
        if kind == "COPY":
            for name in words.split()[:-1]:
                if (ROOT / name).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyi")
                    shutil.copytree(ROOT / name, folder / name, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, folder / name)


def loopback_up() -> None:
    """A new network has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: up, running


def inside(folder: Path, venv: Path) -> None:
    """In a network and a file system of its own."""
    loopback_up()
    compiled = folder.parent / "compiled"
    subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], check=True)
    words = " ".join(words for kind, words in instructions() if kind == "ENV")
    chosen = dict(word.split("=", 1) for word in words.split()) | {"NUMBA_CACHE_DIR": str(compiled)}
    environment = {"PATH": f"{venv}/bin:/usr/bin:/bin", "HOME": pwd.getpwnam(USER).pw_dir} | chosen
    how = {"cwd": folder, "env": environment, "user": USER, "group": USER, "extra_groups": []}

    def timed(name: str, began: float) -> None:
        print(f"{name}: {time.monotonic() - began:.2f} s", flush=True)

    began = time.monotonic()
    compile_now = [words for kind, words in instructions() if kind == "RUN"][-1]
    subprocess.run(["sh", "-c", compile_now], check=True, **how)
    timed("compiling, once", began)
    try:
        socket.create_connection(("1.1.1.1", 53), timeout=3)
        raise SystemExit("There is a network here.")
    except OSError:
        pass

    command = json.loads(next(words for kind, words in instructions() if kind == "CMD"))
    check = json.loads(next(words for kind, words in instructions() if kind == "HEALTHCHECK").split("CMD", 1)[1])
    began = time.monotonic()
    process = subprocess.Popen(command, **how)
    while subprocess.run(check, check=False, stderr=subprocess.DEVNULL, **how).returncode:
        if process.poll() is not None or time.monotonic() - began > 120:
            raise SystemExit("It did not become healthy.")
        time.sleep(0.1)
    timed("start until healthy", began)
    page = urllib.request.urlopen(f"http://127.0.0.1:{chosen['DUET_PORT']}/", timeout=10).read()
    if b"doodle-duet-language" not in page:
        raise SystemExit("The page is another.")
    with connect(f"ws://127.0.0.1:{chosen['DUET_PORT']}/live") as link:
        for name in ("first request", "second request"):
            began, first = time.monotonic(), None
            link.send(json.dumps(ASKED | {"seed": len(name)}))
            while (message := json.loads(link.recv(timeout=30)))["type"] == "points":
                first = first or time.monotonic() - began
            if message["type"] != "done" or len(message["drawings"]) != 9:
                raise SystemExit(f"No endings: {message}")
            print(
                f"{name}: first point {first * 1e3:.0f} ms, all {(time.monotonic() - began) * 1e3:.0f} ms", flush=True
            )
    memory = Path(f"/proc/{process.pid}/status").read_text()
    print("memory:", re.search(r"VmRSS:\s+(\d+)", memory)[1], "kB; user:", re.search(r"Uid:\s+(\d+)", memory)[1])
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    if process.wait(12):
        raise SystemExit(f"It ended with {process.returncode}.")
    timed("stop", began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="an environment with requirements.txt in it, readable for all")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.inside, options.venv)
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        folder, venv = Path(scratch) / "app", options.venv or Path(scratch) / "venv"
        folder.mkdir()
        copy(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"the program and its network: {size / 1e6:.1f} MB")
        subprocess.run(["useradd", "--create-home", USER], check=True)
        try:
            compiled = Path(scratch) / "compiled"
            compiled.mkdir()
            shutil.chown(compiled, USER, USER)
            if not options.venv:
                base = "/usr/bin/python3"  # one that every user may run
                subprocess.run([base, "-m", "venv", venv], check=True)
                subprocess.run([venv / "bin/pip", "install", "--quiet", "-r", folder / "requirements.txt"], check=True)
            command = [sys.executable, "-m", "tests.image", "--inside", folder, "--venv", venv]
            subprocess.run(["unshare", "--net", "--mount", *command], cwd=ROOT, check=True)
        finally:
            subprocess.run(["userdel", "--remove", USER], check=True, stderr=subprocess.DEVNULL)
    print("all well")


if __name__ == "__main__":
    main()
