"""The history of an event: its jobs as a tree, and everything that happened, in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from inbox.job import JobState, job_id
from tasks.models import Effect


@dataclass(frozen=True, slots=True)
class JobNode:
    """A job and its follow-up jobs."""

    job: dict[str, Any]
    follow_ups: list[JobNode] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Something that happened at `at` (ms since 1970). `took` (ms) is None if it has no duration, or none yet."""

    at: int
    what: str
    outcome: str = ""
    took: int | None = None
    reason: str = ""
    job: str = ""


def build_job_tree(jobs: Sequence[dict[str, Any]], follow_ups: Mapping[str, str]) -> list[JobNode]:
    """The jobs as trees. `follow_ups` maps a job's id to the follow-ups in its effect row (JSON)."""
    nodes = {job["id"]: JobNode(job) for job in jobs}
    parents = parents_of(jobs, follow_ups)
    for job, node in nodes.items():
        if parent := parents.get(job):
            nodes[parent].follow_ups.append(node)
    return [node for job, node in nodes.items() if job not in parents]


def parents_of(jobs: Sequence[dict[str, Any]], follow_ups: Mapping[str, str]) -> dict[str, str]:
    """Maps the id of each follow-up job to the id of the job that created it."""
    parents = {}
    for job in jobs:
        for follow_up in json.loads(follow_ups.get(job["id"], "[]")):
            child = job_id(job["source"], job["event"], follow_up["effect"])
            if child != job["id"]:
                parents[child] = job["id"]
    return parents


def load_follow_ups(sessions: Callable[[], Session], jobs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The follow-ups (JSON) in the effect row of each job; empty while the database is unavailable."""
    rows = select(Effect).where(Effect.job_id.in_([job["id"] for job in jobs]))
    try:
        with sessions() as db:
            return {effect.job_id: effect.follow_ups for effect in db.scalars(rows)}
    except SQLAlchemyError:
        return {}


def build_timeline(event: Mapping[str, Any]) -> list[TimelineEntry]:
    """The deliveries, every attempt of every job, discards, and when each waiting job is due; the oldest first."""
    entries = _delivery_entries(event)
    for job in event["jobs"]:
        entries += [_attempt_entry(job, number, attempt) for number, attempt in enumerate(job["attempts"], 1)]
        if job.get("discarded"):
            entries.append(TimelineEntry(job["discarded"], "discarded", reason=job["discard_reason"], job=job["id"]))
        if job["state"] in (JobState.PENDING, JobState.SCHEDULED):
            entries.append(TimelineEntry(job["due"], "is due", job["state"], job=job["id"]))
    return sorted(entries, key=lambda entry: entry.at)


def _delivery_entries(event: Mapping[str, Any]) -> list[TimelineEntry]:
    """The first delivery, and the last ones that the record remembers."""
    secrets = {delivery["at"]: delivery["secret"] for delivery in event.get("last_deliveries", ())}
    labels = {event["received"]: "received"} | {at: "received again" for at in secrets if at > event["received"]}
    return [
        TimelineEntry(at, label + (f", verified by secret {secrets[at]}" if secrets.get(at) else ""))
        for at, label in labels.items()
    ]


def _attempt_entry(job: Mapping[str, Any], number: int, attempt: Mapping[str, Any]) -> TimelineEntry:
    ended = attempt.get("ended")
    return TimelineEntry(
        attempt["started"],
        f"attempt {number}",
        attempt.get("outcome", "running"),
        None if ended is None else ended - attempt["started"],
        attempt.get("reason") or "",
        job["id"],
    )
