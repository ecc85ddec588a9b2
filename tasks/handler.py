"""The contract between handlers and the worker.

A handler is a function that does the work of one job:

    def order_placed(attempt: Attempt, db: Session) -> list[FollowUp]: ...

tasks/routes.py lists the events that it handles; docs/handlers.md shows a complete example.

**One transaction.** After the handler has returned, workers/run.py commits its SQL together with the job's row in the
table `effects`, whose key is unique. So either all of it is committed or nothing, and only once per job. A later
attempt of the job that finds the row does not call the handler again: it only records the stored follow-ups. The
handler must not leave work for after its return, and does not commit at its end.

**What may run again.** If the handler raises, or the worker dies before that commit, the SQL is rolled back and a new
attempt calls the handler again from the start, perhaps while the old process is still running. Everything outside the
transaction (calls to other servers, files, transactions that the handler committed itself) may therefore happen again.

**Outgoing calls** are made within `outside_transaction(db)` (tasks/db/transactions.py), so that no transaction is open
while the handler waits for another server, and with `attempt.key` as the idempotency key: it is the same in every
attempt and replay of the job.

**Follow-ups** are jobs that the handler returns. They exist as soon as the job has succeeded, and not before.

**Errors** decide what happens to the job (inbox/errors.py):

- PermanentError: it becomes a dead letter at once, and a person can replay it.
- GaveUp: the same, and its follow-ups are created in the same step.
- NotNow: it runs again at the given time; the attempt is not counted.
- LeaseLost (from `attempt.renew`): another worker has the job; this attempt ends and changes nothing.
- the record or the database cannot be reached: it runs again soon; the attempt is not counted.
- every other exception: it is retried with growing delays up to MAX_ATTEMPTS, or by the schedule that its Task names,
  and then becomes a dead letter. A TransientError may name a minimum delay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from inbox.event import Event
from settings import Settings
from tasks.routes import effect_of


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A job to create when this one has succeeded.

    `effect` is its name within the event (`notify.payment_failed`). The idempotency key is source, event id and effect,
    so two follow-ups of one event with the same effect are one job. `args` must hold ids only, no personal data. Jobs
    with the same `ordering_key` never run at the same time.
    """

    effect: str
    task: str
    args: Mapping[str, str | int] = field(default_factory=dict)
    delay_seconds: int = 0
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to run a job; the worker holds the job's lease."""

    key: str  # the idempotency key `source:event_id:effect`, the same in every attempt and replay
    event: Event
    args: Mapping[str, str | int]
    number: int  # 1 for the first
    now: datetime  # UTC; the store's clock at the start of the attempt: workers' own clocks may differ
    settings: Settings
    renew: Callable[[], None]  # renews the lease during long work; raises LeaseLost if it has expired
    replays: int = 0  # how often a person has replayed this job; `number` then starts at 1 again
    last: bool = False  # if this attempt fails, the job becomes a dead letter
    deadline: float = math.inf  # the time.monotonic() of the soft time limit: outgoing calls end by then


class GaveUp(PermanentError):
    """The job becomes a dead letter, and its `follow_ups` (such as a notification) are created in the same step."""

    def __init__(self, message: str, follow_ups: Sequence[FollowUp]) -> None:
        super().__init__(message)
        self.follow_ups = follow_ups


def replay_suffix(attempt: Attempt) -> str:
    """A suffix for the effects of follow-ups, so that a replay creates new ones; "" if there was no replay.

    A follow-up that gets it as args["replayed"] passes it on to its own follow-ups.
    """
    before = str(attempt.args.get("replayed", ""))
    return f"{before}.again{attempt.args.get('number', 0)}-{attempt.replays}" if attempt.replays else before


def page_number(attempt: Attempt) -> int:
    """Which page of a long list this job processes; 1 for the first."""
    return int(attempt.args.get("page", 1))


def next_page(attempt: Attempt, task: str, ordering_key: str = "") -> FollowUp:
    """The follow-up job that processes the next page."""
    number = page_number(attempt) + 1
    return FollowUp(f"{effect_of(task)}.{number}", task, {"page": number}, ordering_key=ordering_key)


Handler = Callable[[Attempt, Session], Sequence[FollowUp]]
