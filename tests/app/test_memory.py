"""Freed memory goes back to the system."""

from __future__ import annotations

import os
import threading
import time

import pytest

from app import memory


def resident() -> float:
    """MB of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not memory.give_back(), reason="This C library keeps what was freed.")
def test_holes_are_given_back_until_the_server_stops():
    pieces, stopped = [bytes([k % 256]) * 12_000 for k in range(10_000)], threading.Event()
    before = resident()
    pieces = pieces[::100]  # 119 MB are free, with something in use between
    thread = memory.give_back_until(stopped, seconds=0.05)
    deadline = time.monotonic() + 20
    while resident() > before - 60 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert resident() < before - 60
    assert len(pieces) == 100
    stopped.set()
    thread.join(20)
    assert not thread.is_alive()


def test_where_it_cannot_be_given_back_nothing_is_done(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert not memory.give_back()
    thread = memory.give_back_until(threading.Event(), seconds=0.01)
    thread.join(20)
    assert not thread.is_alive()
