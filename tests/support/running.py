"""A job from lease to finish in this process, as a worker without a backlog does it."""

from __future__ import annotations

import time

from tasks.handler import Handler
from workers.run import Runner


def run(runner: Runner, handler: Handler, job: str, celery_task_id: str, limit_seconds: float) -> str:
    """What became of it in a word. Raises AttemptFailed."""
    over = time.monotonic() + limit_seconds
    lease = runner.lease(job, celery_task_id)
    return lease if isinstance(lease, str) else runner.attempt(handler, lease, over)[0]
