"""What was freed goes back to the system.

glibc keeps freed memory for whoever asks next. After a crowd in all modes that is some 200 MB, in pieces between what
is still used, and each larger crowd adds to it. Giving it back takes 10 to 20 ms; every 20 s it cost no drawings that
could be measured.
"""

from __future__ import annotations

import ctypes
import threading

EVERY_SECONDS = 5.0


def give_back() -> bool:
    """Give freed memory back to the system now; False where the C library cannot (musl, macOS, Windows)."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True


def give_back_until(stopped: threading.Event, seconds: float = EVERY_SECONDS) -> threading.Thread:
    """Do so again and again, in a thread of its own, until the event is set."""

    def work() -> None:
        while not stopped.wait(seconds) and give_back():
            pass

    thread = threading.Thread(target=work, name="memory", daemon=True)
    thread.start()
    return thread
