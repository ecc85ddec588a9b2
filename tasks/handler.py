"""What a handler is: a function of one attempt and a database session that returns its follow-up jobs.

    def order_placed(attempt: Attempt, db: Session) -> list[FollowUp]: ...

Its SQL is committed by the caller (workers/run.py), together with the unique effect row of the job: all of it or none,
and only once. A handler calls other servers within `outside_transaction(db)` (tasks/db/transactions.py), with
`attempt.key` as the idempotency key, and may be called again for the same key when the worker dies in between.
Errors: PermanentError -> dead letter at once; GaveUp -> the same, with what it leaves behind; NotNow -> at its time,
uncounted; anything else -> tried again later.
"""

from __future__ import annotations

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
    """A job that exists once this one has succeeded.

    `effect` names it within the event (`notify.payment_failed`): with source and event id it makes the idempotency
    key, so two follow-ups of one event with the same effect are one job. `args` hold ids only, no personal data.
    """

    effect: str
    task: str
    args: Mapping[str, str | int] = field(default_factory=dict)
    delay_seconds: int = 0
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One leased try of a job."""

    key: str  # the idempotency key `source:event_id:effect`, the same in every attempt and replay
    event: Event
    args: Mapping[str, str | int]
    number: int  # 1 for the first
    now: datetime  # UTC
    settings: Settings
    renew: Callable[[], None]  # keep the lease during long work; raises LeaseLost when it is gone
    replays: int = 0  # how often a person has asked to have this job run again
    last: bool = False  # if this one fails, the job is a dead letter


class GaveUp(PermanentError):
    """The job ends as a dead letter, and its `follow_ups` exist in the same step: somebody may have to be told."""

    def __init__(self, message: str, follow_ups: Sequence[FollowUp]) -> None:
        super().__init__(message)
        self.follow_ups = follow_ups


def replay_suffix(attempt: Attempt) -> str:
    """What sets apart the follow-ups of a replay, and of those that follow from it; empty where nobody replayed."""
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
