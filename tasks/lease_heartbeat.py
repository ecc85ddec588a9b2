"""Renewing a job's lease during blocking work."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TypeVar

from inbox.errors import HoldfastError, LeaseLost
from tasks.clients.responses import DeadlineReached
from tasks.time_limit import start

T = TypeVar("T")
RENEW_EVERY_SECONDS = 1.0


def run_renewing_lease(work: Callable[[], T], renew: Callable[[], None], deadline: float = math.inf) -> T:
    """Run blocking work (an fsync, a digest, an upload) in a thread while renewing the job's lease; return its result.

    Raises whatever the work raises; LeaseLost, after the work has ended; DeadlineReached if it has not ended by the
    deadline of the attempt (time.monotonic()). It then goes on in its thread.
    """
    done = start(work)
    try:
        while not wait([done], min(RENEW_EVERY_SECONDS, max(deadline - time.monotonic(), 0))).done:
            _check(deadline)
            renew()
    except LeaseLost:
        wait([done], None if deadline == math.inf else max(deadline - time.monotonic(), 0))
        raise
    return done.result()


def _check(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise DeadlineReached("the job reached its time limit")


@contextmanager
def renewing_lease(renew: Callable[[], None]) -> Iterator[None]:
    """Renew the job's lease, in a thread, while the block waits for another server.

    The block runs in the caller's thread, where a signal that stops the worker ends its wait. If the lease is lost, the
    renewal ends silently; the block's own next `renew` raises LeaseLost.
    """
    done = Event()

    def run() -> None:
        with suppress(HoldfastError):
            while not done.wait(RENEW_EVERY_SECONDS):
                renew()

    thread = Thread(target=run, daemon=True, name="lease-heartbeat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
