"""Orderly shutdown on every signal that ends a process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_by_exception() -> None:
    """SIGINT, SIGTERM and SIGHUP all raise KeyboardInterrupt in the main thread."""
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A shutdown in this block is not interrupted by a second Ctrl-C."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
