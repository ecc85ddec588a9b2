"""What happens to a job that ignores its soft time limit."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from billiard.pool import TimeoutHandler
from celery.concurrency.asynpool import AsynPool

from settings import Settings

POOLS_WITH_TIME_LIMITS = {"celery.concurrency.prefork"}  # docs/decisions/0007
MOST_SECONDS_TO_STOP = 5.0


def stop_in_time(settings: Settings) -> None:
    """A process that exceeds its hard time limit receives SIGTERM and can record why its job failed, before SIGKILL
    ends it. billiard grants 0.1 s, which is too short for a busy machine; this grants as much as the lease allows.

    It replaces a private part of billiard, of the version in telemetry/tested_versions.py.
    """
    seconds = min(MOST_SECONDS_TO_STOP, (settings.lease_seconds - settings.job_time_limit_seconds) / 2)

    class Handler(TimeoutHandler):  # type: ignore[misc]
        def _trywaitkill(self, worker: Any) -> None:
            worker.terminate()
            if worker._popen.wait(timeout=seconds) is None:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    AsynPool.TimeoutHandler = Handler


def problem(options: Mapping[str, Any], settings: Settings) -> str:
    """Which option of the worker lets a job run longer than its lease; empty if none does."""
    pool, limit = options.get("pool"), options.get("time_limit")
    if pool is not None and pool.__module__ not in POOLS_WITH_TIME_LIMITS:
        return (
            f"--pool is {pool.__module__.rpartition('.')[2]}; it must be prefork, which stops jobs at their time limit"
        )
    if limit is not None and not 0 < limit < settings.lease_seconds:
        return f"--time-limit is {limit:g}; it must be between 0 and LEASE_SECONDS ({settings.lease_seconds})"
    return ""
