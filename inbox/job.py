"""A job: one event x one effect, the unit of durability.

ready -> leased -> succeeded | ready (due later) | dead
by a person: dead -> discarded;  dead | succeeded | discarded -> ready (replay)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class StoredState(StrEnum):
    """Where a job stands. `ready` and `leased` jobs are owed; the others are final, but for what a person does."""

    READY = "ready"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    DISCARDED = "discarded"  # a dead letter that a person has put away


MOVES: Mapping[StoredState, frozenset[StoredState]] = {
    StoredState.READY: frozenset({StoredState.LEASED}),
    StoredState.LEASED: frozenset({StoredState.SUCCEEDED, StoredState.READY, StoredState.DEAD}),
    StoredState.SUCCEEDED: frozenset({StoredState.READY}),  # by replay only
    StoredState.DEAD: frozenset({StoredState.READY, StoredState.DISCARDED}),  # by replay, by discard only
    StoredState.DISCARDED: frozenset({StoredState.READY}),  # by replay only
}


def job_id(source: str, event_id: str, effect: str) -> str:
    """The job's id is also its idempotency key: the same over attempts and replays."""
    return f"{source}:{event_id}:{effect}"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be recorded.

    `args` are small and hold ids, never personal data. Jobs that share an `ordering_key` never run at once.
    """

    id: str
    task: str
    queue: str
    args: Mapping[str, str | int] = field(default_factory=dict)
    delay_seconds: int = 0
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A job that somebody should look at now. `Celery task name` and queue say who."""

    job_id: str
    task: str
    queue: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-limited exclusive claim on a job. `token` is the fence: a newer lease makes it worthless."""

    job_id: str
    token: int
    attempt: int  # 1 for the first
    args: Mapping[str, str | int]
    source: str
    event_id: str
    event_type: str
    body: bytes
    received_ms: int
    replays: int = 0  # how often a person has had it run again
    first: bool = False  # nobody ever had it before, so nothing can have come of it yet
    task: str = ""
    task_id: str = ""  # Celery's, of the message that brought it


@dataclass(frozen=True, slots=True)
class NextJobRequest:
    """Who wants what: the next job of a queue, if it is one of `tasks`, leased to `holder`."""

    holder: str
    lease_seconds: float
    queue: str
    tasks: Sequence[str]
