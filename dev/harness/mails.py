"""Mails are sent at least once: decides which repeated mails have an excuse, and which are doubled. Pure.

An excuse is an answer that the mail service itself broke off, a disturbance that may have ended the worker between the
mail and its commit, or a time limit that ended it. Each excuses no more mails than were being sent then, so that a
product that sends every mail twice is found, however closely the disturbances follow one another.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dev.harness.timing import Outage

# In the names of disturbances that may end or undo an attempt.
ENDS_ATTEMPTS = ("worker", "store", "queues", "broker", "database")
MAX_EXCUSED = 4  # mails in progress: one attempt in each of two processes, and one more in each during the disturbance
OVERRUN = "a worker's time limit"  # not one of our disturbances: the machine was too busy for one attempt
ATTEMPT_MS = 6000  # no attempt lasts longer: JOB_TIME_LIMIT_SECONDS of the run, and a second for the signal


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that the mail service accepted at this time. Not `answered`: the service broke off its answer."""

    kind: str
    address: str
    at_ms: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """How often each mail was sent, by "<kind> mails" and address, without those excused; and the number of those."""

    found: dict[str, Counter[str]]
    excused: int


def count(mails: Iterable[Mail], outages: Sequence[Outage]) -> Counted:
    """`outages`: all disturbances and overruns."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    repeated = list[Mail]()  # each of these was followed by the same mail, so it needs an excuse
    for mail, repeated_later in _with_what_followed(mails):
        if repeated_later:
            repeated.append(mail)
        else:
            found[f"{mail.kind} mails"][mail.address] += 1
    unexcused = _unexcused(sorted((mail for mail in repeated if mail.answered), key=lambda mail: mail.at_ms), outages)
    for mail in unexcused:
        found[f"{mail.kind} mails"][mail.address] += 1
    return Counted(dict(found), len(repeated) - len(unexcused))


def overruns(log: str) -> list[Outage]:
    """The attempts that Celery ended at their time limit, from the log of a worker."""
    lines = (json.loads(line) for line in log.splitlines() if "time limit (" in line)
    times = [datetime.fromisoformat(line["timestamp"]).timestamp() * 1000 for line in lines]
    return [Outage(OVERRUN, "an attempt", at_ms, at_ms) for at_ms in times]


def _with_what_followed(mails: Iterable[Mail]) -> Iterator[tuple[Mail, bool]]:
    """Each mail, and whether the same mail followed it."""
    seen = set[tuple[str, str]]()
    for mail in sorted(mails, key=lambda mail: -mail.at_ms):
        yield mail, (mail.kind, mail.address) in seen
        seen.add((mail.kind, mail.address))


def _unexcused(repeated: Iterable[Mail], outages: Sequence[Outage]) -> list[Mail]:
    """Assign each mail, earliest first, to the disturbance that ends first and has an excuse left."""
    excuses = [one for one in outages if any(part in one.kind for part in ENDS_ATTEMPTS)]
    left = {one: 1 if one.kind == OVERRUN else MAX_EXCUSED for one in sorted(excuses, key=lambda one: one.end_ms)}
    unexcused = []
    for mail in repeated:
        excuse = next((one for one, times in left.items() if times and _may_have_ended(mail, one)), None)
        if excuse is None:
            unexcused.append(mail)
        else:
            left[excuse] -= 1
    return unexcused


def _may_have_ended(mail: Mail, one: Outage) -> bool:
    """Whether the attempt that sent it may have been running during the disturbance."""
    return one.begin_ms - ATTEMPT_MS <= mail.at_ms <= one.end_ms + ATTEMPT_MS
