"""What is wrong now, and what of it somebody is to be told: pure decisions.

An alarm fires as long as its cause lasts. It is told when it begins, again after each quiet time, and once when it is
over; what stops and begins anew within HOLD_MS has not been over. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

HOLD_MS = 300_000
HOUR_MS = 3_600_000
DOUBTS = 3  # a sender's own retries bring a broken secret there soon
MEMORY = 0.8  # of the limit; at 0.9 senders hear 503 (inbox/memory_guard.py)
DISK_SHARE, DISK_BYTES = 0.05, 10 * 1024**3  # short is what is less than both


@dataclass(frozen=True, slots=True)
class Limits:
    """How old the oldest owed job may be, and for how long each of some sources may say nothing."""

    backlog_ms: int
    silent_ms: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Figures:
    """How things stand: dead letters; events `missed` within the last hour; of each queue since when its oldest job is
    owed; of each source when it was last believed, and how often not since; memory (used, allowed; 0: no limit); of
    each host whose disk is short how many bytes are free."""

    now: int
    dead: int = 0
    missed: int = 0
    owed_since: Mapping[str, int] = field(default_factory=dict)
    last: Mapping[str, int] = field(default_factory=dict)
    unproven: Mapping[str, int] = field(default_factory=dict)
    memory: tuple[int, int] = (0, 0)
    disks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Standing:
    """One alarm that fires, or has not been over for long: since when; when it was last told, and since when it does
    not fire, both 0 for not at all."""

    words: str
    since: int
    told: int = 0
    calm: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What to tell, in words, all in one message."""

    new: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    over: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.again or self.over)

    def subject(self) -> str:
        """The most important of it."""
        head, *rest = [*self.new, *self.again, *(f"resolved: {words}" for words in self.over)]
        return f"{head}, and {len(rest)} more" if rest else head

    def text(self) -> str:
        parts = (("New:", self.new), ("Still:", self.again), ("Resolved:", self.over))
        return "\n\n".join("\n".join([head, *(f"- {one}" for one in words)]) for head, words in parts if words)


def short(free: int, total: int) -> bool:
    """True where a disk has too little room (bytes) for what may come."""
    return free < min(DISK_SHARE * total, DISK_BYTES)


def firing(seen: Figures, limits: Limits) -> dict[str, str]:
    """Every alarm that fires, by its name, in words."""
    return dict(_firing(seen, limits))


def _firing(seen: Figures, limits: Limits) -> Iterator[tuple[str, str]]:
    if seen.dead:
        yield "dead", f"{_many(seen.dead, 'dead letter waits', 'dead letters wait')} for a person"
    for queue, since in seen.owed_since.items():
        if seen.now - since > limits.backlog_ms:
            yield f"backlog {queue}", f"the oldest job of {queue} is owed for {_age(seen.now - since)}"
    for source, most in limits.silent_ms.items():
        last = seen.last.get(source)  # one that never spoke has not gone silent
        if last is not None and seen.now - last > most:
            yield f"silent {source}", f"{source} has sent nothing for {_age(seen.now - last)}"
    for source, times in seen.unproven.items():
        if times >= DOUBTS:
            yield f"signatures {source}", f"{times} deliveries of {source} were refused since the last believed one"
    if seen.missed:
        yield "missed", f"{_many(seen.missed, 'event', 'events')} of the last hour never arrived, and had to be fetched"
    used, most = seen.memory
    if most and used > MEMORY * most:
        yield "memory", f"the store has used {used * 100 // most} % of its memory; at 90 % senders hear 503"
    for host, free in seen.disks.items():
        yield f"disk {host}", f"the disk of {host} has {free // 1024**2} MB left for documents"


def decide(
    before: Mapping[str, Standing], now_firing: Mapping[str, str], now: int, quiet_ms: int, patience_ms: int = 0
) -> tuple[dict[str, Standing], Told]:
    """How the alarms stand from now on, and what to tell. One that has not lasted `patience_ms` yet is not told."""
    after: dict[str, Standing] = {}
    new, again, over = [], [], []
    for name, words in now_firing.items():
        old = before.get(name, Standing(words, now))
        told = old.told
        if not told and now - old.since >= patience_ms:
            new.append(words)
            told = now
        elif told and now - told >= quiet_ms:
            again.append(words)
            told = now
        after[name] = Standing(words, old.since, told)
    for name, old in before.items():
        calm = old.calm or now
        if name in now_firing or not old.told:
            continue
        if now - calm >= HOLD_MS:
            over.append(old.words)
        else:
            after[name] = Standing(old.words, old.since, old.told, calm)
    return after, Told(tuple(new), tuple(again), tuple(over))


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _age(ms: int) -> str:
    return (
        f"{ms // 60_000} min"
        if ms < 2 * HOUR_MS
        else f"{ms // HOUR_MS} h"
        if ms < 48 * HOUR_MS
        else f"{ms // (24 * HOUR_MS)} d"
    )
