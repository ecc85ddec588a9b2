"""A worker with a backlog does the next jobs of its queue without going back to Celery for each of them.

Celery's own part of a job that does nothing is two thirds of a millisecond of CPU; see docs/decisions/0007.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from inbox.job import Lease, NextJobRequest
from tasks.handler import Handler
from tasks.routes import TASKS
from workers.flower_events import FlowerEvents
from workers.run import AttemptFailed, Runner

SLICE_SECONDS = 0.2  # so late a job may begin within its Celery task, whose time limit holds for all of them


def work(
    runner: Runner, handlers: Mapping[str, Handler], lease: Lease, limit_seconds: float, told: FlowerEvents
) -> str:
    """Do the job, and then those that wait behind it, while the slice lasts. Answers what became of the first.

    Raises AttemptFailed if the first failed; how others end is written down, and `told`.
    """
    began = time.monotonic()
    wish = _wish(runner, lease.task)

    def attempt(lease: Lease) -> tuple[str, Lease | str]:
        wanted = wish if time.monotonic() - began < SLICE_SECONDS else None
        return runner.attempt(handlers[lease.task], lease, began + limit_seconds, wanted)

    found: Lease | str = lease
    try:
        word, found = attempt(lease)
        while isinstance(found, Lease):
            with told.of(found) as outcome:
                try:
                    outcome.word, found = attempt(found)
                except AttemptFailed as error:
                    outcome.error, found = str(error), "none"
    except (SystemExit, KeyboardInterrupt):  # told to stop: maybe when its attempt had not begun yet
        runner.release(found)
        raise
    return word


def _wish(runner: Runner, task: str) -> NextJobRequest | None:
    """Of the same queue, what has the same time limit as any other task; who has one of his own does his job alone."""
    queue = TASKS[task].queue
    alike = [name for name, it in TASKS.items() if it.queue == queue and not it.time_limit_seconds]
    return NextJobRequest(runner.holder, runner.settings.lease_seconds, queue, alike) if task in alike else None
