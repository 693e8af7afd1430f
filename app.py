"""Doodle Duet: ``python app.py`` opens the page; a hosted Space starts this file too."""

from __future__ import annotations

import atexit
import os
import sys

# Before gradio and numpy are imported: no calls home, and one BLAS thread (two fight over one small step).
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import app.space  # noqa: F401 (first: see there)
import sketch_core
from app import logs, settings
from app.server import StopSignal, serve
from app.studio import Studio
from sketch_core import checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until told to stop: 0, or 1 if it cannot listen there, 2 if a setting is wrong."""
    chosen = settings.from_arguments(arguments)
    logs.configure(chosen.log_level, chosen.log_format)
    stop = StopSignal()
    try:
        sketcher = sketch_core.load(chosen.checkpoint, device=chosen.device)
    except ValueError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    studio = Studio(sketcher, others=checkpoint.available)
    try:
        serve(studio, chosen, stop)
    except OSError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    finally:
        studio.close(finish=False)
    return 0


if __name__ == "__main__":
    code = main()
    # All that Python does at its end but for taking PyTorch and Gradio apart, which takes seconds that no host has.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
