"""A mail is sent at least once: which of those that came again have an excuse, and which are doubled. Pure.

An excuse is an answer that the mail service itself broke off, a disturbance that may have parted the worker from its
commit while it was at that very mail, or a time limit that ended it. Each excuses no more mails than were under way, so
that a product that mails everybody twice is found out, however closely one disturbance follows another.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dev.harness.timing import Done

PARTED = ("worker", "store", "queues", "broker", "database")  # in the names of what may end or undo an attempt
EACH = 4  # mails under way at once: an attempt of each of two processes, and of each once more while something is held
OVERRUN = "a worker's time limit"  # no disturbance of ours: the machine was too busy for one attempt
ATTEMPT_MS = 6000  # no attempt lasts longer: JOB_TIME_LIMIT_SECONDS of the run, and a second to be told


@dataclass(frozen=True, slots=True)
class Mail:
    """One that the mail service took, at this time in milliseconds since 1970. Not `heard`: it broke off its yes."""

    kind: str
    address: str
    at_ms: float
    heard: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """How often each was sent, those with an excuse left out, by "<kind> mails" and address; and how many had one."""

    found: dict[str, Counter[str]]
    excused: int


def count(mails: Iterable[Mail], done: Sequence[Done]) -> Counted:
    """`done` is all that was broken, and the overruns."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    repeated = list[Mail]()  # those that had to be sent again, so it is they who need the excuse
    for mail, came_again in _with_what_followed(mails):
        if came_again:
            repeated.append(mail)
        else:
            found[f"{mail.kind} mails"][mail.address] += 1
    unexcused = _unexcused(sorted((mail for mail in repeated if mail.heard), key=lambda mail: mail.at_ms), done)
    for mail in unexcused:
        found[f"{mail.kind} mails"][mail.address] += 1
    return Counted(dict(found), len(repeated) - len(unexcused))


def overruns(log: str) -> list[Done]:
    """Whom Celery ended for its time limit, by the log of a worker."""
    said = (json.loads(line) for line in log.splitlines() if "time limit (" in line)
    times = [datetime.fromisoformat(line["timestamp"]).timestamp() * 1000 for line in said]
    return [Done(OVERRUN, "an attempt", at_ms, at_ms) for at_ms in times]


def _with_what_followed(mails: Iterable[Mail]) -> Iterator[tuple[Mail, bool]]:
    """Each with whether the same came again after it."""
    seen = set[tuple[str, str]]()
    for mail in sorted(mails, key=lambda mail: -mail.at_ms):
        yield mail, (mail.kind, mail.address) in seen
        seen.add((mail.kind, mail.address))


def _unexcused(repeated: Iterable[Mail], done: Sequence[Done]) -> list[Mail]:
    """Give each, earliest first, to the disturbance that is over soonest and has an excuse left."""
    excuses = [one for one in done if any(word in one.kind for word in PARTED)]
    left = {one: 1 if one.kind == OVERRUN else EACH for one in sorted(excuses, key=lambda one: one.over_ms)}
    unexcused = []
    for mail in repeated:
        excuse = next((one for one, times in left.items() if times and _at_work(mail, one)), None)
        if excuse is None:
            unexcused.append(mail)
        else:
            left[excuse] -= 1
    return unexcused


def _at_work(mail: Mail, one: Done) -> bool:
    """Whether the attempt that sent it may have been under way in that time."""
    return one.begun_ms - ATTEMPT_MS <= mail.at_ms <= one.over_ms + ATTEMPT_MS
