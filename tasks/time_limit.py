"""Work that is not waited for beyond a time, given as a time.monotonic()."""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def seconds_until(until: float) -> float:
    """The seconds left. Raises TimeoutError if there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def run_until(until: float, work: Callable[[], T]) -> T:
    """The result of `work`. Raises TimeoutError if it does not end in time.

    It then goes on in its thread, and its result is dropped.
    """
    return work() if until == math.inf else start(work).result(seconds_until(until))


def start(work: Callable[[], T]) -> Future[T]:
    """Begin `work` in a thread, which does not keep the process from ending."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return result
