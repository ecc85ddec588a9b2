"""A job: one event x one effect, the unit of durability.

pending or scheduled -> running -> succeeded | scheduled (retry) | dead
pending -> dead, if no running worker knows its task
by a person: dead -> discarded;  dead | succeeded | discarded -> pending (replay)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class JobState(StrEnum):
    """The state of a job as people and programs see it; `job_state` computes it. The last three are final, except that
    a person may replay or discard a job."""

    PENDING = "pending"  # waits for a worker
    SCHEDULED = "scheduled"  # due later: a retry, a delay, a timer
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"  # a dead letter: waits for a person
    DISCARDED = "discarded"  # a dead letter that a person has discarded


UNFINISHED = frozenset({JobState.PENDING, JobState.SCHEDULED, JobState.RUNNING})


class StoredState(StrEnum):
    """The codes in Redis; scripts/common.lua has the same. They never change: other versions read them."""

    PENDING = "ready"  # pending or scheduled, by its due time
    RUNNING = "leased"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    DISCARDED = "discarded"


MOVES: Mapping[StoredState, frozenset[StoredState]] = {
    StoredState.PENDING: frozenset({StoredState.RUNNING, StoredState.DEAD}),
    StoredState.RUNNING: frozenset({StoredState.SUCCEEDED, StoredState.PENDING, StoredState.DEAD}),
    StoredState.SUCCEEDED: frozenset({StoredState.PENDING}),  # by replay only
    StoredState.DEAD: frozenset({StoredState.PENDING, StoredState.DISCARDED}),  # by replay, by discard only
    StoredState.DISCARDED: frozenset({StoredState.PENDING}),  # by replay only
}


def job_state(stored: str, due_ms: int, now_ms: int) -> JobState:
    """The state of a job with this code in Redis and this due time."""
    if stored == StoredState.PENDING:
        return JobState.SCHEDULED if due_ms > now_ms else JobState.PENDING
    return JobState.RUNNING if stored == StoredState.RUNNING else JobState(stored)


def job_id(source: str, event_id: str, effect: str) -> str:
    """The id of a job, which is also its idempotency key: the same in every attempt and replay."""
    return f"{source}:{event_id}:{effect}"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be recorded.

    `args` are small and contain ids, never personal data. Jobs with the same `ordering_key` never run at the same time.
    """

    id: str
    task: str
    queue: str
    args: Mapping[str, str | int] = field(default_factory=dict)
    delay_seconds: int = 0
    ordering_key: str = ""


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A job that a worker should lease now, with its Celery task name and queue (tasks/broker.py rings it)."""

    job_id: str
    task: str
    queue: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A time-limited exclusive claim on a job. `token` is the fencing token: a newer lease invalidates it."""

    job_id: str
    token: int
    attempt: int  # 1 for the first
    args: Mapping[str, str | int]
    source: str
    event_id: str
    event_type: str
    body: bytes
    received_ms: int
    replays: int = 0  # how often a person has replayed it
    first: bool = False  # the job was never leased before, so it cannot have had any effect yet
    task: str = ""
    task_id: str = ""  # Celery's id of the message that announced the job
    suspect: bool = False  # it may have killed the process that ran it before, among other jobs
    leased_ms: int = 0  # by the store's clock, which all workers share; milliseconds since 1970


@dataclass(frozen=True, slots=True)
class NextJobRequest:
    """A request for the next job of a queue if its task is one of `tasks`, leased to `holder`.

    If it is repeated with the same `nonce`, because its reply was lost, it gets the same lease.
    """

    holder: str
    lease_seconds: float
    queue: str
    tasks: Sequence[str]
    nonce: str


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request for up to `number` waiting jobs, leased to `holder`; see scripts/lease_next.lua.

    `tasks` are the caller's, by queue; the queues take turns in this order. The jobs `announced` come last. `polls`:
    the caller will ask again within a second. `takes_suspect`: one of the jobs may be a suspect. The same `nonce` gets
    the same leases again.
    """

    holder: str
    lease_seconds: float
    tasks: Mapping[str, Sequence[str]]
    number: int
    nonce: str
    polls: bool = False
    takes_suspect: bool = True
    announced: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """Leases; whether there are more jobs than were requested; doorbells to ring for them."""

    leases: Sequence[Lease]
    left: bool
    bells: Sequence[Doorbell]
