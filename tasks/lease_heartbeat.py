"""Renewing a job's lease during blocking work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

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
