"""Runs one job as a worker does whose own clock is ahead: `python -m tests.support.skewed_worker <job> <seconds>`."""

from __future__ import annotations

import datetime
import importlib
import os
import sys
import time

AHEAD_SECONDS = float(sys.argv[2])
real_time = time.time


class SkewedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> SkewedDatetime:
        return cls.fromtimestamp(time.time(), tz)


def main() -> None:
    time.time = lambda: real_time() + AHEAD_SECONDS
    datetime.datetime = SkewedDatetime  # type: ignore[misc]  # before the worker's modules import it
    app = importlib.import_module("workers.app")
    runner = app.runner(os.getpid())
    lease = runner.lease(sys.argv[1], "task-1")
    assert not isinstance(lease, str), lease
    print(runner.attempt(app.HANDLERS[lease.task], lease, time.monotonic() + 60)[0])


main()
