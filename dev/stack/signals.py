"""Ending in good order, however one is told to end."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_exception() -> None:
    """Ctrl-C, a polite kill and a closed terminal all raise KeyboardInterrupt in the main thread."""
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)


def end_undisturbed() -> None:
    """From now on the end is under way, and a second Ctrl-C must not leave half of it undone."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
