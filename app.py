"""Doodle Duet: ``python app.py`` opens the page; a hosted Space starts this file too."""

from __future__ import annotations

import argparse
import os
import signal
import sys

# Before gradio and numpy are imported: no calls home, and one BLAS thread (two fight over one small step).
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import sketch_core
from app.server import launch
from app.studio import Studio
from sketch_core import checkpoint


def stop(*_: object) -> None:
    """A host's stop signal ends as Ctrl-C does (which a process in the background may have been told to ignore)."""
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Doodle with a neural network.")
    parser.add_argument("--host", default=os.environ.get("DUET_HOST", "127.0.0.1"), help="address to listen on")
    parser.add_argument("--port", type=int, default=int(os.environ.get("DUET_PORT", "7860")), help="port [7860]")
    parser.add_argument("--share", action="store_true", help="also open a public link for a week (through Gradio)")
    parser.add_argument("--device", default=os.environ.get("DUET_DEVICE", "auto"), help="auto, cpu, cuda, mps")
    parser.add_argument("--checkpoint", default=os.environ.get("DUET_CHECKPOINT"), help="name or folder")
    options = parser.parse_args(arguments)
    try:
        sketcher = sketch_core.load(options.checkpoint, device=options.device)
    except ValueError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, stop)
    studio = Studio(sketcher, others=checkpoint.available)
    try:
        launch(studio, host=options.host, port=options.port, share=options.share)
    finally:
        studio.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
