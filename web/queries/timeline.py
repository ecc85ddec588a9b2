"""What became of an event: which job followed which, and what happened when."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from inbox.job import job_id
from tasks.models import Effect


@dataclass(frozen=True, slots=True)
class Branch:
    """A job and those that followed from it."""

    job: dict[str, Any]
    follow_ups: list[Branch] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened. Times in ms since 1970; `took` is None for what was over at once or still goes on."""

    at: int
    what: str
    outcome: str = ""
    took: int | None = None
    reason: str = ""
    job: str = ""


def grown(jobs: Sequence[dict[str, Any]], effects: Mapping[str, str]) -> list[Branch]:
    """The jobs as trees, by the follow-ups (JSON) that the effect of each has left behind."""
    branches = {job["id"]: Branch(job) for job in jobs}
    parents = followed(jobs, effects)
    for name, branch in branches.items():
        if parent := parents.get(name):
            branches[parent].follow_ups.append(branch)
    return [branch for name, branch in branches.items() if name not in parents]


def followed(jobs: Sequence[dict[str, Any]], effects: Mapping[str, str]) -> dict[str, str]:
    """Of each job that followed from another one, that one."""
    found = {}
    for job in jobs:
        for follow_up in json.loads(effects.get(job["id"], "[]")):
            name = job_id(job["source"], job["event"], follow_up["effect"])
            if name != job["id"]:
                found[name] = job["id"]
    return found


def effects(sessions: Callable[[], Session], jobs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The follow-ups (JSON) that each job has left behind; none while the database does not answer."""
    mine = select(Effect).where(Effect.job_id.in_([job["id"] for job in jobs]))
    try:
        with sessions() as db:
            return {effect.job_id: effect.follow_ups for effect in db.scalars(mine)}
    except SQLAlchemyError:
        return {}


def moments(event: Mapping[str, Any]) -> list[Moment]:
    """The arrival, every attempt of every job, and when each waiting job is due, in the order of time."""
    line = _arrivals(event)
    for job in event["jobs"]:
        line += [_attempt(job, number, attempt) for number, attempt in enumerate(job["attempts"], 1)]
        if job.get("discarded"):
            line.append(Moment(job["discarded"], "discarded", reason=job["why"], job=job["id"]))
        if job["state"] == "ready":
            line.append(Moment(job["due"], "is due", "ready", job=job["id"]))
    return sorted(line, key=lambda moment: moment.at)


def _arrivals(event: Mapping[str, Any]) -> list[Moment]:
    """The first, and the last that are remembered."""
    heard = {one["at"]: one["secret"] for one in event.get("heard", ())}
    words = {event["received"]: "arrived"} | {at: "came again" for at in heard if at > event["received"]}
    return [Moment(at, what + (f", by secret {heard[at]}" if heard.get(at) else "")) for at, what in words.items()]


def _attempt(job: Mapping[str, Any], number: int, attempt: Mapping[str, Any]) -> Moment:
    ended = attempt.get("ended")
    return Moment(
        attempt["started"],
        f"attempt {number}",
        attempt.get("outcome", "running"),
        None if ended is None else ended - attempt["started"],
        attempt.get("reason") or "",
        job["id"],
    )
