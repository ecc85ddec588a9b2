"""What became of an event: which job followed which, and what happened when. Pure functions of what the record says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inbox.job import job_id


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
    parents = {
        job_id(branches[parent].job["source"], branches[parent].job["event"], follow_up["effect"]): parent
        for parent, follow_ups in effects.items()
        for follow_up in json.loads(follow_ups)
    }
    for name, branch in branches.items():
        parent = parents.get(name)
        if parent and parent != name:
            branches[parent].follow_ups.append(branch)
    return [branch for name, branch in branches.items() if parents.get(name) in (None, name)]


def moments(event: Mapping[str, Any]) -> list[Moment]:
    """The arrival, every attempt of every job, and when each waiting job is due, in the order of time."""
    line = [Moment(event["received"], "arrived")]
    for job in event["jobs"]:
        line += [_attempt(job, number, attempt) for number, attempt in enumerate(job["attempts"], 1)]
        if job["state"] == "ready":
            line.append(Moment(job["due"], "is due", "ready", job=job["id"]))
    return sorted(line, key=lambda moment: moment.at)


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
