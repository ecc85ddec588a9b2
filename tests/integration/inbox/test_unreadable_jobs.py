"""Something else has written to the store: what cannot be read does not stop what is done for other jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inbox.batch import BatchStore
from inbox.event import Event
from inbox.job import BatchRequest, Lease, NewJob
from inbox.queries import stats
from inbox.store import PREFIX, Store
from inbox.wire import nonce
from tests.conftest import Clock

ROOM = {"payments": 100}


def deleted(store: Store, name: str) -> None:
    store.client.delete(f"{PREFIX}job:{name}")


def of_another_type(store: Store, name: str) -> None:
    store.client.delete(f"{PREFIX}job:{name}")
    store.client.set(f"{PREFIX}job:{name}", "no job")


def without_attempt(store: Store, name: str) -> None:
    token = store.client.hget(f"{PREFIX}job:{name}", "token")
    store.client.hdel(f"{PREFIX}job:{name}", f"attempt:{token.decode()}")  # type: ignore[union-attr]


def job(name: str, *, key: str = "", delay: int = 0) -> NewJob:
    return NewJob(name, "tasks.a", "payments", {}, delay, key)


def record(store: Store, *jobs: NewJob) -> None:
    store.record(Event("stripe", "evt_1", "t", b"{}"), jobs)


def swept(store: Store, limit: int = 10) -> list[str]:
    return [bell.job_id for bell in store.sweep(limit, ROOM)]


@pytest.mark.parametrize("spoil", [deleted, of_another_type])
@pytest.mark.parametrize("delay", [0, 5])
def test_a_sweep_passes_over_jobs_that_cannot_be_read(
    store: Store, clock: Clock, spoil: Callable[[Store, str], None], delay: int
) -> None:
    names = [f"bad{n}" for n in range(20)]
    record(store, *(job(name, delay=delay) for name in names))
    clock.forward(1)
    store.record(Event("stripe", "evt_2", "t", b"{}"), [job("good", delay=delay)])
    for name in names:
        spoil(store, name)
    clock.forward(15)
    assert swept(store) + swept(store) + swept(store) == ["good"]
    assert store.client.hget(f"{PREFIX}counts", "unreadable") == b"20"


def lease_a_bad_and_a_good_job(store: Store, spoil: Callable[[Store, str], None]) -> None:
    record(store, job("bad"), job("good"))
    for name in ("bad", "good"):
        assert isinstance(store.lease(name, "host-1/1", 60), Lease)
    spoil(store, "bad")


@pytest.mark.parametrize("spoil", [deleted, of_another_type, without_attempt])
def test_expired_leases_end_beside_one_that_cannot_be_read(
    store: Store, clock: Clock, spoil: Callable[[Store, str], None]
) -> None:
    lease_a_bad_and_a_good_job(store, spoil)
    clock.forward(61)
    assert "good" in swept(store)


@pytest.mark.parametrize("spoil", [deleted, of_another_type, without_attempt])
def test_leases_of_a_dead_worker_end_beside_one_that_cannot_be_read(
    store: Store, clock: Clock, spoil: Callable[[Store, str], None]
) -> None:
    lease_a_bad_and_a_good_job(store, spoil)
    assert store.heartbeat("host-1")[0] == ["host-1/1"]
    assert "good" in [bell.job_id for bell in store.end_leases("host-1/1")]


@pytest.mark.parametrize("spoil", [deleted, of_another_type])
def test_a_worker_with_slots_passes_over_jobs_that_cannot_be_read(
    store: Store, clock: Clock, spoil: Callable[[Store, str], None]
) -> None:
    record(store, job("bad"), job("good"))
    spoil(store, "bad")
    slots = BatchStore(store.client, now_ms=clock)
    batch = slots.exchange(BatchRequest("host-1/1", 60, {"payments": ["tasks.a"]}, 5, nonce()))
    assert batch is not None
    assert [lease.job_id for lease in batch.leases] == ["good"]


def test_the_end_of_a_job_rings_the_next_one_that_exists(store: Store) -> None:
    record(store, *(job(name, key="cus_1") for name in ("first", "bad", "good")))
    lease = store.lease("first", "host-1/1", 60)
    assert isinstance(lease, Lease)
    assert [store.lease(name, "host-1/2", 60) for name in ("bad", "good")] == ["waiting"] * 2
    deleted(store, "bad")
    assert [bell.job_id for bell in store.finish(lease)] == ["good"]
    assert stats(store)["succeeded"] == 1
