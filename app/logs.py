"""The server's log on standard error: lines for people, or one JSON object a line.

What it says: start and stop, errors, and at "debug" every request's kind, outcome and time. What it never says: what
somebody drew, or from where.
"""

from __future__ import annotations

import json
import logging
import time
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
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One object a line: time, level, logger, message, the record's own fields, and an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage()} | getattr(record, "fields", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


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


def take_over_uvicorn() -> None:
    """Its warnings in our form; its access log, which names addresses, never. (It sets up its own when it starts.)"""
    for name in UVICORNS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
