"""The server's log on standard error: lines for people, or one JSON object a line.

What it says: start and stop, errors, and at "debug" every request's kind, outcome and time. What it never says: what
somebody drew, or from where. So of an error it tells the kind and the places in the code, not the message, into which
Gradio for one puts what it was sent.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
import traceback
from typing import Any

OURS = ("app", "sketch_core")
UVICORNS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


def fields(**values: Any) -> dict[str, Any]:
    """Values for ``log.info(…, extra=fields(…))``: columns in JSON, ``name=value`` in text."""
    return {"fields": values}


class Text(logging.Formatter):
    """2026-01-31T12:00:00.000Z INFO app.server: Ready. model=duet-345"""

    def format(self, record: logging.LogRecord) -> str:
        shown = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {record.getMessage()}{shown}"
        return f"{line}\n{trace(record.exc_info[1])}" if record.exc_info else line


class Json(logging.Formatter):
    """One object a line: time, level, logger, message, the record's own fields, and where an error came from."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = trace(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def trace(error: BaseException | None) -> str:
    """An error's traceback without its message, the error that caused it first."""
    lines: list[str] = []
    while error is not None:
        places = "".join(traceback.format_tb(error.__traceback__))
        lines.insert(0, f"Traceback (most recent call last):\n{places}{type(error).__name__}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(lines)


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def configure(level: str = "info", form: str = "text") -> None:
    """Send everything to standard error; ``level`` is of our own loggers, libraries tell warnings only."""
    handler = logging.StreamHandler()
    handler.setFormatter(Json() if form == "json" else Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries' debug lines would hold what the page and the server send each other: drawings, headers, addresses.
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())


class _Hushed:
    """Stands in Gradio's modules for ``traceback``, with which they print errors: these go to the log, our way."""

    def __getattr__(self, name: str) -> Any:
        return getattr(traceback, name)

    @staticmethod
    def print_exc() -> None:
        logging.getLogger("gradio").warning("A call failed.", exc_info=True)


def take_over_gradio() -> None:
    """Have Gradio tell of its errors in our form."""
    for name in ("queueing", "routes", "route_utils"):
        module = importlib.import_module(f"gradio.{name}")
        if hasattr(module, "traceback"):
            module.traceback = _Hushed()  # type: ignore[attr-defined]


def take_over_uvicorn() -> None:
    """Its warnings in our form; its access log, which names addresses, never. (It sets up its own when it starts.)"""
    for name in UVICORNS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
