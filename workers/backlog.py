"""While there is a backlog, a worker runs the next jobs of its queue without returning to Celery for each.

Celery's overhead is two thirds of a millisecond of CPU per job; see docs/decisions/0007.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from inbox.job import Lease, NextJobRequest
from inbox.wire import nonce
from settings import SLICE_SECONDS
from tasks.handler import Handler
from tasks.routes import TASKS
from workers.flower_events import FlowerEvents
from workers.run import AttemptFailed, Runner


def work(
    runner: Runner, handlers: Mapping[str, Handler], lease: Lease, limit_seconds: float, events: FlowerEvents
) -> str:
    """Run the job, and then the next jobs of its queue until the slice is over. Returns the outcome of the first.

    Celery's `limit_seconds` begin with the first job. They cover the slice and a job's whole limit, because no job
    begins after the slice: whether there is a next one is decided when a job has ended. Raises AttemptFailed if the
    first job failed. The outcomes of the others are in the record and in `events`.
    """
    began = time.monotonic()
    queue, tasks = TASKS[lease.task].queue, _tasks_of_a_slice(lease.task, slots=runner.settings.worker_slots > 1)

    def next_request() -> NextJobRequest | None:
        if not tasks or time.monotonic() - began >= SLICE_SECONDS:
            return None
        return NextJobRequest(runner.holder, runner.settings.lease_seconds, queue, tasks, nonce())

    def attempt(lease: Lease) -> tuple[str, Lease | str]:
        return runner.attempt(handlers[lease.task], lease, began + limit_seconds, next_request)

    found: Lease | str = lease
    try:
        first_outcome, found = attempt(lease)
        while isinstance(found, Lease):
            with events.record(found) as outcome:
                try:
                    outcome.result, found = attempt(found)
                except AttemptFailed as error:
                    outcome.error, found = str(error), "none"
    except (SystemExit, KeyboardInterrupt):  # the worker must stop, perhaps before the attempt of `found` has begun
        runner.release(found)
        raise
    return first_outcome


def _tasks_of_a_slice(task: str, *, slots: bool) -> Sequence[str]:
    """The tasks of the same queue with the default time limit. A task with its own limit runs alone, and one that runs
    in a slot is none of the main thread's."""
    queue = TASKS[task].queue
    same_limit = [name for name, it in TASKS.items() if it.queue == queue and not it.time_limit_seconds]
    return [name for name in same_limit if not (slots and TASKS[name].has_slot)] if task in same_limit else []
