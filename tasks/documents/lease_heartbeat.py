"""Long work that leaves the lease alive."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
RENEW_EVERY_SECONDS = 1.0


def run_renewing_lease(work: Callable[[], T], renew: Callable[[], None]) -> T:
    """Do work that gives no sign of life (an fsync, a digest, an upload), renewing the lease meanwhile.

    Raises LeaseLost, once the work has ended, and what the work raises.
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        while not wait([done], RENEW_EVERY_SECONDS).done:
            renew()
        return done.result()
