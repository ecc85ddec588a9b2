"""Renewing a job's lease during blocking work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import TypeVar

from inbox.errors import HoldfastError

T = TypeVar("T")
RENEW_EVERY_SECONDS = 1.0


def run_renewing_lease(work: Callable[[], T], renew: Callable[[], None]) -> T:
    """Run blocking work (an fsync, a digest, an upload) in a thread while renewing the job's lease; return its result.

    Raises LeaseLost, after the work has ended, and whatever the work raises.
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        while not wait([done], RENEW_EVERY_SECONDS).done:
            renew()
        return done.result()


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
