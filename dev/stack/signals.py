"""Orderly shutdown on every signal that ends a process."""

from __future__ import annotations

import signal

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_exception() -> None:
    """SIGINT, SIGTERM and SIGHUP all raise KeyboardInterrupt in the main thread."""
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)


def end_undisturbed() -> None:
    """The shutdown has started: a second Ctrl-C must not interrupt it."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
