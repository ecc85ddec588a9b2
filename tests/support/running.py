"""Runs a job from lease to finish in this process, as a worker without a backlog does."""

from __future__ import annotations

import time

from tasks.handler import Handler
from workers.run import Runner


def run(runner: Runner, handler: Handler, job: str, celery_task_id: str, limit_seconds: float) -> str:
    """Returns the attempt's outcome, or the reason why there was no lease. Raises AttemptFailed."""
    deadline = time.monotonic() + limit_seconds
    lease = runner.lease(job, celery_task_id)
    return lease if isinstance(lease, str) else runner.attempt(handler, lease, deadline)[0]
