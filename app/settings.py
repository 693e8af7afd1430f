"""Every setting of the page's server, once: flags, variables, ``--help`` and the docs' table are made of it.

    python -m app.settings        # prints the table

A flag wins over a variable, the project's variable over Gradio's, and a variable that is empty is not there.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROOT_PATH = re.compile(r"(https?://[\w.:\[\]-]+)?(/[\w.~%-]+)*")
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
PRIVATE = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
"""Networks from which a Space's own proxies come."""


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError("A port is a whole number from 1 to 65535.")
    return int(text)


def _count(text: str, lowest: int, most: int = 1_000_000) -> int:
    if not text.isascii() or not text.isdigit() or not lowest <= int(text) <= most:
        raise ValueError(f"This must be a whole number from {lowest} to {most:,}.")
    return int(text)


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:\[\]-]+", text):
        raise ValueError("A host is an address such as 0.0.0.0, or a name.")
    return f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text


def _root_path(text: str) -> str:
    path = text.rstrip("/")
    if path and not path.startswith(("/", "http://", "https://")):
        path = f"/{path}"
    if not ROOT_PATH.fullmatch(path):
        raise ValueError("A root path looks like /draw, or https://example.org/draw.")
    return path


def _device(text: str) -> str:
    if not DEVICE.fullmatch(text):
        raise ValueError("A device is auto, cpu, cuda, cuda:1 and so on, or mps.")
    return text


def _proxies(text: str) -> str:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        try:
            ipaddress.ip_network(part)
        except ValueError as error:
            raise ValueError(
                "Trusted proxies are addresses or networks with commas between them, such as 127.0.0.1,10.0.0.0/8."
            ) from error
    return ",".join(parts)


def _yes(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError("This must be 1 or 0, true or false, yes or no, on or off.")
    return text.lower() in ("1", "true", "yes", "on")


def _one_of(*choices: str) -> Callable[[str], str]:
    def choose(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"This must be one of {', '.join(choices)}.")
        return text.lower()

    return choose


def _setting(default: Any, read: Callable[[str], Any], variables: str, words: str) -> Any:
    """A field: how its text is read (ValueError: one sentence), its variables in order, and what it does."""
    return field(default=default, metadata={"read": read, "variables": variables.split(), "words": words})


@dataclass(frozen=True)
class Settings:
    """What a host may choose. Made by :func:`from_arguments`, or directly, where nothing is checked."""

    host: str = _setting(
        "127.0.0.1", _host, "DUET_HOST GRADIO_SERVER_NAME", "address to listen on; 0.0.0.0 for other machines as well"
    )
    port: int = _setting(7860, _port, "DUET_PORT GRADIO_SERVER_PORT", "port to listen on")
    root_path: str = _setting(
        "", _root_path, "DUET_ROOT_PATH GRADIO_ROOT_PATH", "where a proxy puts the page, such as /draw"
    )
    share: bool = _setting(False, _yes, "DUET_SHARE", "also open a public link for a week (through Gradio)")
    device: str = _setting("auto", _device, "DUET_DEVICE", "where the networks compute: auto, cpu, cuda, cuda:1, mps")
    checkpoint: str | None = _setting(
        None, str, "DUET_CHECKPOINT", "name or folder of the network that answers where no other is asked for"
    )
    mcp: bool = _setting(
        False, _yes, "DUET_MCP", "also let language models draw, over MCP (needs `pip install 'gradio[mcp]'`)"
    )
    users: int = _setting(
        300, lambda text: _count(text, 1, 100_000), "DUET_USERS", "most pages open at once; others are told it is full"
    )
    requests_per_minute: int = _setting(
        6000,
        lambda text: _count(text, 0),
        "DUET_REQUESTS_PER_MINUTE",
        "requests a minute from one address, a quarter of them at once; 0: no limit",
    )
    trusted_proxies: str = _setting(
        "",
        _proxies,
        "DUET_TRUSTED_PROXIES",
        "addresses or networks of proxies, with commas, whose X-Forwarded-For tells the visitor's address",
    )
    metrics: str = _setting(
        "local",
        _one_of("local", "on", "off"),
        "DUET_METRICS",
        "who may read /metrics: local (this machine, not through a proxy), on (anyone) or off",
    )
    log_level: str = _setting(
        "info",
        _one_of("debug", "info", "warning", "error"),
        "DUET_LOG_LEVEL",
        "what the log tells: debug (each request), info, warning or error",
    )
    log_format: str = _setting(
        "text", _one_of("text", "json"), "DUET_LOG_FORMAT", "how: text, or json, one object a line"
    )


def parser() -> argparse.ArgumentParser:
    """The command line; what is not given there is ``None``."""
    made = argparse.ArgumentParser(
        prog="app.py",
        description="Doodle with a neural network: starts the page's server.",
        epilog="Each can be set by the variable named with it as well; a flag wins. See docs/hosting.md.",
    )
    for each in dataclasses.fields(Settings):
        flag = "--" + each.name.replace("_", "-")
        words = f"{each.metadata['words']} [{_shown(each.default)}; {', '.join(each.metadata['variables'])}]"
        words = words.replace("%", "%%")
        if isinstance(each.default, bool):
            made.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=words)
        else:
            metavar = each.name.rsplit("_", maxsplit=1)[-1].upper()
            made.add_argument(flag, type=_for_argparse(each.metadata["read"]), metavar=metavar, help=words)
    return made


def hosted(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What is usual elsewhere than in :class:`Settings`: on a Hugging Face Space.

    Visitors come through its proxies, mostly each from an address of their own. With ZeroGPU, PyTorch claims a GPU that
    is there only inside a call which has been granted one; small steps are the CPU's work anyway.
    """
    if environment.get("SYSTEM") != "spaces":
        return {}
    zero = environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return {"trusted_proxies": PRIVATE, "requests_per_minute": 1200} | ({"device": "cpu"} if zero else {})


def from_arguments(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line and the environment.

    Raises:
        SystemExit: with code 2, after one sentence, if a value is wrong; with 0 after ``--help``.
    """
    line = parser()
    given = vars(line.parse_args(arguments))
    usual = hosted(environment)
    for each in dataclasses.fields(Settings):
        if given[each.name] is not None:
            continue
        given[each.name] = usual.get(each.name, each.default)
        name = next((name for name in each.metadata["variables"] if environment.get(name)), None)
        if name is not None:
            try:
                given[each.name] = each.metadata["read"](environment[name])
            except ValueError as error:
                line.exit(2, f"app.py: {name}={environment[name][:60]!r}: {error}\n")
    if given["mcp"] and importlib.util.find_spec("mcp") is None:
        line.exit(2, "app.py: MCP needs one package more; install it with `pip install 'gradio[mcp]'`.\n")
    return Settings(**given)


def table() -> str:
    """The settings as a table in Markdown."""
    lines = ["| flag | variable | usually | what it does |", "|---|---|---|---|"]
    for each in dataclasses.fields(Settings):
        flag, names = each.name.replace("_", "-"), ", ".join(f"`{name}`" for name in each.metadata["variables"])
        words = each.metadata["words"][0].upper() + each.metadata["words"][1:]
        lines.append(f"| `--{flag}` | {names} | {_shown(each.default)} | {words} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return "none" if default in ("", None) else str(default)


def _for_argparse(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


if __name__ == "__main__":
    print(table(), end="")
