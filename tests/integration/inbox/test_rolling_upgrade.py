"""Workers and receivers of an earlier version run beside those of this one, on one record."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from dev.stack.servers import Valkey
from inbox.client import connect
from inbox.errors import LeaseLost
from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.queries import stats
from inbox.retry import RetryAt
from inbox.rules import Rules
from inbox.store import PREFIX, Store
from tests.conftest import Clock
from tests.support import record_model
from tests.support.earlier_version import EarlierStore

QUEUES = ("payments", "notifications")
ROOM = dict.fromkeys(QUEUES, 100)
RULES = Rules(max_attempts=1000)


@pytest.fixture
def versions(valkey: Valkey, clock: Clock) -> tuple[Store, Store]:
    """(the earlier version, this one)"""
    client = connect(valkey.url, timeout_seconds=5)
    return EarlierStore(client, rules=RULES, now_ms=clock), Store(client, RULES, now_ms=clock)


def job(name: str, *, key: str = "", delay: int = 0, queue: str = "payments") -> NewJob:
    return NewJob(name, "tasks.a", queue, {}, delay, key)


def record(store: Store, event: str, *jobs: NewJob) -> None:
    store.record(Event("stripe", event, "t", b"{}"), jobs)


def leased(store: Store, name: str, holder: str = "host-1/1") -> Lease:
    lease = store.lease(name, holder, 60)
    assert isinstance(lease, Lease), lease
    return lease


def swept(store: Store) -> list[str]:
    return [bell.job_id for bell in store.sweep(200, ROOM)]


def test_a_delayed_job_of_the_earlier_version_is_rung(versions: tuple[Store, Store], clock: Clock) -> None:
    earlier, new = versions
    record(earlier, "evt_1", job("j1", delay=60))
    assert swept(new) == []
    clock.forward(60)
    assert swept(new) == ["j1"]
    new.finish(leased(new, "j1"))
    record_model.check(record_model.read(new.client), clock.ms)


def test_a_lease_of_the_earlier_version_expires_and_frees_its_ordering_key(
    versions: tuple[Store, Store], clock: Clock
) -> None:
    earlier, new = versions
    record(earlier, "evt_1", job("j1", key="sub_1"), job("j2", key="sub_1"), job("j3", key="sub_1"))
    leased(earlier, "j1")
    assert (earlier.lease("j2", "host-1/2", 60), new.lease("j3", "host-2/1", 60)) == ("waiting", "waiting")
    clock.forward(60)
    assert {"j1", "j2"} <= set(swept(new))
    for name in ("j2", "j3", "j1"):
        new.finish(leased(new, name))
    record_model.check(record_model.read(new.client), clock.ms)


def test_a_sweep_of_the_earlier_version_does_not_end_a_lease_of_this_one(
    versions: tuple[Store, Store], clock: Clock
) -> None:
    """The job was due in the earlier version's set, and is leased by a doorbell that came twice."""
    earlier, new = versions
    record(earlier, "evt_1", job("j1", delay=60))
    clock.forward(60)
    lease = leased(new, "j1")
    assert swept(earlier) == []
    new.finish(lease)


@pytest.mark.parametrize("seed", range(30))
def test_two_versions_do_every_job_once_and_one_at_a_time(
    versions: tuple[Store, Store], clock: Clock, seed: int
) -> None:
    chance = random.Random(seed)
    held: dict[str, tuple[Store, Lease, str, int]] = {}
    keys = ["", "", "cus_1", "cus_1", "cus_2"]
    names = [f"j{n}" for n in range(25)]
    for name in names:
        new = job(name, key=chance.choice(keys), delay=chance.choice([0, 0, 30]), queue=chance.choice(QUEUES))
        record(chance.choice(versions), f"evt_{name}", new)
    for _ in range(400):
        if stats(versions[1])["unfinished"] == 0:
            break
        _one_step(chance, versions, clock, held, names)
    _finish_all(versions[1], clock, names)
    assert stats(versions[1]) | {"succeeded": 25, "dead": 0} == stats(versions[1])
    record_model.check(record_model.read(versions[1].client), clock.ms)


def _one_step(
    chance: random.Random,
    versions: Sequence[Store],
    clock: Clock,
    held: dict[str, tuple[Store, Lease, str, int]],
    names: Sequence[str],
) -> None:
    store, name = chance.choice(versions), chance.choice(names)
    what = chance.choice(["lease", "lease", "finish", "fail", "release", "renew", "sweep", "time", "death"])
    if what == "sweep":
        store.sweep(200, ROOM)
    elif what == "time":
        clock.forward(chance.choice([1, 11, 31, 61]))
    elif what == "death":
        store.end_leases("host-1/1")
        held.clear()
    elif what == "lease":
        _lease(store, name, clock, held)
    elif name in held:
        _report(what, *held.pop(name)[:2], clock)


def _lease(store: Store, name: str, clock: Clock, held: dict[str, tuple[Store, Lease, str, int]]) -> None:
    lease = store.lease(name, "host-1/1", 60)
    if isinstance(lease, Lease):
        key = str(store.client.hget(f"{PREFIX}job:{name}", "key"))
        valid = [(other, k) for other, (_, _, k, until) in held.items() if until > clock.ms]
        assert not [other for other, k in valid if other == name or (key != "b''" and k == key)]
        held[name] = store, lease, key, clock.ms + 60_000


def _report(what: str, store: Store, lease: Lease, clock: Clock) -> None:
    """By the store that leased it: a process is of one version."""
    try:
        if what == "finish":
            store.finish(lease)
        elif what == "fail":
            store.fail(lease, "the peer is down", RetryAt(clock.ms + 5000))
        elif what == "renew":
            store.renew(lease, 60)
            store.release(lease)
        else:
            store.release(lease)
    except LeaseLost:
        pass


def _finish_all(store: Store, clock: Clock, names: Sequence[str]) -> None:
    """All workers of the earlier version have been replaced."""
    for _ in range(60):
        clock.forward(61)
        for name in swept(store):
            lease = store.lease(name, "host-2/1", 60)
            if isinstance(lease, Lease):
                store.finish(lease)
