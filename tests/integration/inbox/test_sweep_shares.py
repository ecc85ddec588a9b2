"""What is due in one queue, or waits for one ordering key, does not delay what is due in another."""

from __future__ import annotations

import pytest

from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.queries import stats
from inbox.retry import RetryAt
from inbox.rules import Rules
from inbox.statistics import unfinished_by_queue
from inbox.store import PREFIX, Store
from tests.conftest import Clock

LIMIT = 10
ROOM = {"payments": 100, "notifications": 100}


def job(name: str, queue: str = "notifications", *, key: str = "", delay: int = 0) -> NewJob:
    return NewJob(name, "tasks.a", queue, {}, delay, key)


def record(store: Store, *jobs: NewJob) -> None:
    store.record(Event("stripe", f"evt_{jobs[0].id}", "t", b"{}"), jobs)


def leased(store: Store, name: str, seconds: float = 60) -> Lease:
    lease = store.lease(name, "worker-1", seconds)
    assert isinstance(lease, Lease), lease
    return lease


def swept(store: Store) -> list[str]:
    return [bell.job_id for bell in store.sweep(LIMIT, ROOM)]


@pytest.fixture
def hot_key(store: Store) -> Lease:
    """A lease for a minute, for whose end a hundred other jobs wait."""
    record(store, *(job(f"w{n}", key="agent:1") for n in range(101)))
    lease = leased(store, "w0")
    assert {store.lease(f"w{n}", "worker-2", 60) for n in range(1, 101)} == {"waiting"}
    return lease


def test_jobs_that_wait_for_an_ordering_key_are_not_due(store: Store, clock: Clock, hot_key: Lease) -> None:
    record(store, job("delayed", "payments", delay=60))
    store.renew(hot_key, 3600)
    clock.forward(60)
    assert swept(store) == ["delayed"]
    assert store.client.zcard(f"{PREFIX}blocked:notifications") == 100


def test_each_of_the_jobs_that_wait_for_a_key_runs_after_its_holder_died(
    store: Store, clock: Clock, hot_key: Lease
) -> None:
    clock.forward(60)
    done = 0
    while found := swept(store):
        for name in found:
            lease = store.lease(name, "worker-2", 60)
            while isinstance(lease, Lease):
                bells = store.finish(lease)
                lease, done = store.lease(bells[0].job_id, "worker-2", 60) if bells else "none", done + 1
    assert (done, stats(store)["succeeded"]) == (101, 101)


@pytest.mark.parametrize("crowd", ["delayed", "retried"])
def test_what_is_due_in_a_queue_does_not_wait_for_that_of_another(store: Store, clock: Clock, crowd: str) -> None:
    many = [job(f"n{n}", delay=5 if crowd == "delayed" else 0) for n in range(300)]
    record(store, *many)
    if crowd == "retried":
        for new in many:
            store.fail(leased(store, new.id), "the mail server is down", RetryAt(clock.ms + 5000))
    record(store, job("p1", "payments", delay=6))
    clock.forward(7)
    found = swept(store)
    assert ("p1" in found, len(found)) == (True, LIMIT)


def test_an_expired_lease_does_not_wait_for_retries_that_are_due(store: Store, clock: Clock) -> None:
    record(store, *(job(f"n{n}", delay=5) for n in range(300)), job("held"))
    leased(store, "held")
    clock.forward(61)
    assert "held" in swept(store)


def test_a_sweep_gives_what_one_queue_leaves_to_the_others(store: Store, clock: Clock) -> None:
    record(store, *(job(f"n{n}", delay=5) for n in range(50)))
    record(store, job("p1", "payments", delay=5))
    clock.forward(6)
    assert [len(swept(store)) for _ in range(6)] == [10, 10, 10, 10, 10, 1]


def test_jobs_that_an_earlier_version_has_ended_do_not_stay_among_the_unfinished(store: Store, clock: Clock) -> None:
    record(store, job("done"), job("open"))
    store.finish(leased(store, "done"))
    store.client.zadd(f"{PREFIX}owed:notifications", {"done": clock.ms - 5000, "pruned": clock.ms - 9000})
    assert swept(store) == []
    assert unfinished_by_queue(store, ["notifications"]) == {"notifications": (1, clock.ms)}


def test_jobs_whose_key_is_held_by_a_job_that_does_not_exist_run(store: Store, clock: Clock, hot_key: Lease) -> None:
    store = Store(store.client, Rules(max_attempts=3), now_ms=clock)
    store.client.delete(f"{PREFIX}job:{hot_key.job_id}")
    assert swept(store) == ["w1"]
    store.finish(leased(store, "w1"))
