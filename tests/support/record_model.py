"""A model in plain Python of the record after any history of calls, and functions that read the real record."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from inbox.job import MOVES, Lease, NewJob, StoredState
from inbox.packing import unpack
from inbox.rules import DAY_MS, Rules
from inbox.store import PREFIX

RETENTION_MS = Rules().retention_days * DAY_MS
FINAL = frozenset({StoredState.SUCCEEDED, StoredState.DEAD, StoredState.DISCARDED})
DONE_WITH = frozenset({StoredState.SUCCEEDED, StoredState.DISCARDED})  # states that need no further work
NOTHING: Mapping[StoredState, int] = {}
Dump = Mapping[bytes, tuple[Any, Any]]


@dataclass
class Job:
    """The expected state of one job."""

    event: str
    queue: str
    key: str
    due: int
    state: StoredState = StoredState.PENDING
    until: int = 0
    tries: int = 0
    token: int = 0
    lost: int = 0
    holder: str = ""
    suspect: bool = False  # it runs, or will run next, as one of those that may have killed their process

    @property
    def unfinished(self) -> bool:
        return self.state not in FINAL


@dataclass
class Model:
    """All jobs, and the effect of each call on them. `now` is in milliseconds."""

    max_attempts: int
    jobs: dict[str, Job] = field(default_factory=dict)
    events: dict[str, list[str]] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    aged: set[str] = field(default_factory=set)  # pruned events, of which only the id is remembered
    gone: Counter[StoredState] = field(default_factory=Counter)  # the jobs of pruned events, which stay in the counts
    counts: Counter[str] = field(default_factory=Counter)
    workers: dict[str, int] = field(default_factory=dict)  # the time of each one's last heartbeat

    def record(self, event: str, new: list[NewJob], now: int) -> bool:
        if event in self.events:
            self.counts["duplicates"] += 1
            return False
        self.events[event], self.received[event] = [], now
        self.counts["accepted"] += 1
        self.counts["unhandled"] += not new
        self.create(event, new, now)
        return True

    def age(self, event: str) -> None:
        """The event and its jobs were pruned, which requires that no job is unfinished."""
        names = self.events[event]
        assert all(self.jobs[name].state in DONE_WITH for name in names), event
        self.gone.update(self.jobs.pop(name).state for name in names)
        self.events[event] = []
        self.aged.add(event)

    def forget(self, event: str, now: int) -> None:
        """The event's id is forgotten, which requires that the retention time is over."""
        if event in self.aged:
            assert now > self.received[event] + RETENTION_MS, event
            self.aged.remove(event)
            del self.events[event]

    def create(self, event: str, new: list[NewJob], now: int) -> None:
        for job in new:
            if job.id not in self.jobs:
                self.jobs[job.id] = Job(event, job.queue, job.ordering_key, now + job.delay_seconds * 1000)
                self.events[event].append(job.id)

    def lease(self, name: str, now: int, scheduled: Container[str]) -> str:
        """The expected result of a lease: 'leased', or the reason why not. `scheduled` jobs may be too early."""
        job = self.jobs[name]
        if job.state is StoredState.RUNNING and job.until > now:
            return "busy"
        self.expire(job, now)
        if not job.unfinished:
            return "done"
        if job.due > now and name in scheduled:
            return "early"
        for other in self.holders(job.key):
            if other.until > now:
                return "waiting"
            self.expire(other, now)
        return "leased"

    def leased(self, name: str, lease: Lease, holder: str, until: int) -> None:
        job = self.jobs[name]
        job.state, job.token, job.until, job.tries = StoredState.RUNNING, lease.token, until, job.tries + 1
        job.holder = holder

    def expire(self, job: Job, now: int) -> None:
        if job.state is StoredState.RUNNING and job.until <= now:
            self._lose(job)

    def _lose(self, job: Job) -> None:
        job.lost, job.suspect = job.lost + 1, False
        job.state = StoredState.DEAD if job.lost >= self.max_attempts else StoredState.PENDING
        self.counts["expired"] += 1

    def end_leases(self, dead: str, now: int) -> set[str]:
        """The only job, or the suspects, of each process are lost: the first time they are due at once. Other jobs are
        returned, and are suspects if there was none."""
        held = {
            name: job
            for name, job in self.jobs.items()
            if job.state is StoredState.RUNNING and dead in (job.holder, worker_of(job.holder))
        }
        for holder in {job.holder for job in held.values()}:
            self._end_process([job for job in held.values() if job.holder == holder], now)
        return set(held)

    def _end_process(self, held: list[Job], now: int) -> None:
        culprits = [len(held) == 1 or job.suspect for job in held]
        for job, culprit in zip(held, culprits, strict=True):
            if culprit:
                self._lose(job)
                job.suspect = True
                delayed = min(job.until, now + 1000 * 2 ** (job.lost - 1))
                if job.state is StoredState.PENDING and job.lost > 1 and delayed > now:
                    job.due = delayed
            else:
                job.state, job.tries, job.suspect = StoredState.PENDING, job.tries - 1, not any(culprits)

    def heartbeat(self, worker: str, now: int, timeout_ms: int) -> set[str]:
        """The jobs that are lost because their workers have not reported for `timeout_ms`."""
        late = now - self.workers.get(worker, now) > timeout_ms / 2
        self.workers = {other: now if late or at > now else at for other, at in self.workers.items()} | {worker: now}
        dead = {other for other, at in self.workers.items() if at <= now - timeout_ms}
        self.workers = {other: at for other, at in self.workers.items() if other not in dead}
        return {name for other in dead for name in self.end_leases(other, now)}

    def holders(self, key: str) -> list[Job]:
        return [job for job in self.jobs.values() if key and job.key == key and job.state is StoredState.RUNNING]

    def finished(self, lease: Lease) -> bool:
        """True if the job has succeeded by this lease."""
        job = self.jobs.get(lease.job_id)
        return job is not None and job.state is StoredState.SUCCEEDED and job.token == lease.token

    def held(self, lease: Lease) -> bool:
        job = self.jobs.get(lease.job_id)
        return job is not None and job.state is StoredState.RUNNING and job.token == lease.token


def worker_of(holder: str) -> str:
    return holder.rpartition("/")[0]


@dataclass(frozen=True)
class Record:
    """The whole content of Redis at one moment."""

    jobs: Mapping[str, Mapping[str, str]]
    events: Mapping[str, Mapping[str, str]]
    earlier: frozenset[str]  # the set of earlier versions
    later: Mapping[str, frozenset[str]]
    blocked: Mapping[str, frozenset[str]]
    running: frozenset[str]
    scheduled: frozenset[str]
    rung: Mapping[str, frozenset[str]]
    unfinished: Mapping[str, frozenset[str]]
    waiting: Mapping[str, frozenset[str]]
    locks: Mapping[str, str]
    leases: Mapping[str, frozenset[str]]  # ids of jobs, by worker
    dead: frozenset[str]
    counts: Mapping[str, int]
    seen_sets: frozenset[str]
    seen: Mapping[str, frozenset[bytes]]  # remembered ids, by the time at which they expire
    expiring: Mapping[str, int]  # keys that will expire, and when (ms)

    def where(self, *states: StoredState) -> set[str]:
        return {name for name, job in self.jobs.items() if job["state"] in states}


def read(client: redis.Redis) -> Record:
    keys: Any = sorted(client.keys(PREFIX + "*"))
    ask = client.pipeline()
    for key in keys:
        ask.type(key)
        ask.pexpiretime(key)
    kinds: Any = ask.execute()
    for key, kind in zip(keys, kinds[::2], strict=True):
        {b"hash": ask.hgetall, b"string": ask.get, b"list": ask.llen, b"stream": ask.xlen, b"set": ask.smembers}.get(
            kind, lambda name: ask.zrange(name, 0, -1)
        )(key)
    values = ask.execute()
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in zip(keys, values, strict=True):
        family, _, name = key.decode().removeprefix(PREFIX).partition(":")
        found[family][name] = _text(value)
    ages: Any = zip(keys, kinds[1::2], strict=True)
    return Record(
        jobs=found["job"],
        events=found["event"],
        earlier=found["later"].pop("", frozenset()),
        later=found["later"],
        blocked=found["blocked"],
        running=found["running"].get("", frozenset()),
        scheduled=found["scheduled"].get("", frozenset()),
        rung=found["rung"],
        unfinished=found["owed"],
        waiting=found["waiting"],
        locks=found["lock"],
        leases={worker: frozenset(name.decode() for name in names) for worker, names in found["leases"].items()},
        dead=found["dead"].get("", frozenset()),
        counts={name: int(value) for name, value in found["counts"].get("", {}).items()},
        seen_sets=found["seen"].get("", frozenset()),
        seen={until: digests for until, digests in found["seen"].items() if until},
        expiring={key.decode().removeprefix(PREFIX): at for key, at in ages if at != -1},
    )


def _text(value: Any) -> Any:
    if isinstance(value, set):
        return frozenset(value)
    if isinstance(value, dict):
        return {name.decode(): text.decode() for name, text in value.items()}
    if isinstance(value, list):
        return frozenset(name.decode() for name in value)
    return unpack(value).decode() if isinstance(value, bytes) else value  # maybe a payload


def dump(client: redis.Redis) -> Dump:
    """Every key with its expiry time, to be restored."""
    keys: Any = client.keys("*")
    return {key: (client.dump(key), client.pexpiretime(key)) for key in keys}


def content(client: redis.Redis) -> Mapping[bytes, Any]:
    """Every key with its expiry time, to be compared: hashes and sets have no order."""
    read: Mapping[Any, Callable[[bytes], Any]] = {b"hash": client.hgetall, b"set": client.smembers}
    keys: Any = client.keys("*")
    kinds: Mapping[bytes, Any] = {key: client.type(key) for key in keys}
    return {key: (read.get(kinds[key], client.dump)(key), client.pexpiretime(key)) for key in keys}


def restore(client: redis.Redis, kept: Dump) -> None:
    """Replace the server's content with the result of `dump`."""
    client.flushall()
    for key, (value, until) in kept.items():
        client.restore(key, max(until, 0), value, absttl=until > 0)


def check(record: Record, now: int, gone: Mapping[StoredState, int] = NOTHING, *, latest: int = 0) -> None:
    """Assert the invariants of every record; `gone` is the number of pruned jobs by state, `latest` the latest time
    that the clock has shown, if it has gone back since."""
    _check_unfinished(record, max(now, latest))
    _check_keys(record)
    _check_counts(record, gone)
    for name, event in record.events.items():
        theirs = [job["state"] for job in record.jobs.values() if f"{job['source']}:{job['event']}" == name]
        unfinished = sum(state not in DONE_WITH for state in theirs) if theirs else -1  # it never had a job
        assert int(event["open"]) == unfinished, name
        assert int(event.get("discarded", 0)) == theirs.count(StoredState.DISCARDED), name
        settled = unfinished <= 0
        assert (f"event:{name}" in record.expiring) is settled, name
        assert (f"body:{name}" in record.expiring) is settled, name
        if settled:
            _check_remembered(record, name, int(event["received"]) + RETENTION_MS, now)
    for name, job in record.jobs.items():
        settled = int(record.events[f"{job['source']}:{job['event']}"]["open"]) == 0
        assert (f"job:{name}" in record.expiring) is settled, name


def _check_remembered(record: Record, name: str, until: int, now: int) -> None:
    """Before an event expires, its id is remembered: for the retention time and while the event exists."""
    digest = hashlib.sha1(name.encode()).digest()[:12]
    sets = [int(end) for end, digests in record.seen.items() if digest in digests]
    assert max(sets, default=0) >= max(until, record.expiring[f"event:{name}"]), name
    assert all(record.expiring[f"seen:{end}"] == end for end in sets)
    assert {str(end) for end in sets if end >= now} <= record.seen_sets


def _check_unfinished(record: Record, latest: int) -> None:
    """Every unfinished job is in exactly one of the sets, and in those of its own queue."""
    by_kind = (record.rung, record.later, record.blocked)
    sets = [record.running, *(names for by_queue in by_kind for names in by_queue.values())]
    in_sets = sorted(name for names in sets for name in names)
    assert in_sets == sorted(record.where(StoredState.PENDING, StoredState.RUNNING))
    assert in_sets == sorted(name for names in record.unfinished.values() for name in names)
    due = {name for name in record.where(StoredState.PENDING) if int(record.jobs[name]["due"]) > latest}
    assert due <= record.scheduled, "every job that is due later is listed as scheduled"
    for by_queue in (*by_kind, record.unfinished):
        assert all(record.jobs[name]["queue"] == queue for queue, names in by_queue.items() for name in names)
    assert record.running == record.where(StoredState.RUNNING), "the end of every lease is known"
    assert record.earlier == frozenset()
    assert record.dead == record.where(StoredState.DEAD)
    leases: dict[str, set[str]] = defaultdict(set)
    for name in record.where(StoredState.RUNNING):
        attempt = json.loads(record.jobs[name][f"attempt:{record.jobs[name]['token']}"])
        leases[worker_of(attempt["holder"])].add(name)
    assert record.leases == leases


def _check_keys(record: Record) -> None:
    """At most one job with an ordering key is leased, and it has the lock; jobs that wait for the key are pending."""
    leased = record.where(StoredState.RUNNING)
    holders = Counter(record.jobs[name]["key"] for name in leased if record.jobs[name]["key"])
    assert all(n == 1 for n in holders.values()), holders
    assert record.locks == {record.jobs[name]["key"]: name for name in leased if record.jobs[name]["key"]}
    waiting = {name for names in record.waiting.values() for name in names}
    assert {name for names in record.blocked.values() for name in names} <= waiting, "the key's release rings it"
    for key, names in record.waiting.items():
        assert names <= record.where(StoredState.PENDING), key
        assert {record.jobs[name]["key"] for name in names} == {key}


def _check_counts(record: Record, gone: Mapping[StoredState, int]) -> None:
    for state in StoredState:
        still = record.counts.get(state, 0) - gone.get(state, 0)
        assert still == len(record.where(state)), state


def check_moves(before: Mapping[str, StoredState], after: Mapping[str, StoredState], *, by_a_person: bool) -> None:
    """A job leaves a final state only by an action of a person, and only by one or more of the MOVES."""
    for name, old in before.items():
        assert after[name] in _reachable(old, by_a_person), (name, old, after[name])


def _reachable(state: StoredState, by_a_person: bool) -> set[StoredState]:
    found, todo = {state}, [state]
    while todo:
        here = todo.pop()
        if here in FINAL and not by_a_person:
            continue
        new = MOVES[here] - found
        found |= new
        todo += new
    return found
