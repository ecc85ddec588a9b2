"""Leases of dead processes and dead workers end early, on a real Valkey with a clock that the test moves."""

from __future__ import annotations

import pytest

from inbox import queries
from inbox.batch import BatchStore
from inbox.errors import LeaseLost
from inbox.event import Event
from inbox.job import BatchRequest, Doorbell, Lease, NewJob
from inbox.queries import stats
from inbox.retry import RetryAt
from inbox.rules import Rules
from inbox.store import PREFIX, Store
from inbox.wire import nonce
from tests.conftest import Clock

LEASE_SECONDS = 90
TIMEOUT_SECONDS = Rules().worker_timeout_seconds


@pytest.fixture(autouse=True)
def recorded(store: Store) -> None:
    store.record(Event("stripe", "evt_1", "test", b"{}"), [NewJob(name, "tasks.a", "payments") for name in ("a", "b")])


def leased(store: Store, job: str, holder: str) -> Lease:
    lease = store.lease(job, holder, LEASE_SECONDS)
    assert isinstance(lease, Lease), lease
    return lease


def bell(job: str) -> Doorbell:
    return Doorbell(job, "tasks.a", "payments")


def test_the_job_of_a_dead_process_is_rung_at_once_and_its_late_finish_is_rejected(store: Store) -> None:
    old = leased(store, "a", "host/w1/11")
    assert store.end_leases("host/w1/11") == [bell("a")]
    new = leased(store, "a", "host/w1/12")
    with pytest.raises(LeaseLost):
        store.finish(old)
    store.finish(new)
    job = queries.find_job(store, "a")
    assert job is not None
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["lost", "succeeded"]
    assert job["attempts"][0]["reason"] == "the worker process died"


def test_the_jobs_of_other_processes_and_finished_jobs_stay(store: Store) -> None:
    leased(store, "a", "host/w1/1")
    store.finish(leased(store, "b", "host/w1/11"))
    assert store.end_leases("host/w1/11") == []
    assert stats(store) | {"running": 1, "succeeded": 1, "expired": 0} == stats(store)


def test_a_job_that_kills_its_process_again_waits_longer_each_time_but_not_longer_than_its_lease(
    store: Store, clock: Clock
) -> None:
    waits = []
    for _ in range(9):
        leased(store, "a", "host/w1/11")
        store.end_leases("host/w1/11")
        wait = max(int(store.client.hget(f"{PREFIX}job:a", "due") or 0) - clock.ms, 0)
        if wait:
            assert store.lease("a", "host/w1/12", LEASE_SECONDS) == "early"
            assert stats(store)["scheduled"] == 1
            clock.forward(wait / 1000)
            assert bell("a") in store.sweep(10, {})
        waits.append(wait // 1000)
    assert waits == [0, 2, 4, 8, 16, 32, 64, 90, 90]


def test_a_job_that_has_killed_its_processes_too_often_is_dead(store: Store) -> None:
    strict = Store(store.client, Rules(max_attempts=1), now_ms=store.now_ms)
    leased(strict, "a", "host/w1/11")
    assert strict.end_leases("host/w1/11") == []
    assert stats(store)["dead"] == 1


def test_a_job_that_waits_for_the_ordering_key_of_a_dead_process_is_rung(store: Store) -> None:
    jobs = [NewJob(name, "tasks.a", "payments", ordering_key="sub_1") for name in ("c", "d")]
    store.record(Event("stripe", "evt_2", "test", b"{}"), jobs)
    leased(store, "c", "host/w1/11")
    assert store.lease("d", "host/w1/12", LEASE_SECONDS) == "waiting"
    assert sorted(it.job_id for it in store.end_leases("host/w1/11")) == ["c", "d"]


def test_the_jobs_of_a_worker_without_heartbeats_are_rung_and_those_of_others_are_not(
    store: Store, clock: Clock
) -> None:
    store.heartbeat("host/w1")
    store.heartbeat("host/w2")
    leased(store, "a", "host/w1/11")
    leased(store, "b", "host/w2/11")
    for _ in range(int(TIMEOUT_SECONDS)):
        assert store.heartbeat("host/w2") == (["host/w2/11"], [])
        clock.forward(1)
    assert store.heartbeat("host/w2") == (["host/w2/11"], [bell("a")])
    assert store.heartbeat("host/w2") == (["host/w2/11"], [])


def test_a_worker_that_returns_after_its_leases_were_ended_starts_again(store: Store, clock: Clock) -> None:
    store.heartbeat("host/w1")
    old = leased(store, "a", "host/w1/11")
    _let_time_out(store, clock)
    assert store.heartbeat("host/w1") == ([], [])
    with pytest.raises(LeaseLost):
        store.renew(old, LEASE_SECONDS)
    leased(store, "a", "host/w1/11")
    assert store.heartbeat("host/w1") == (["host/w1/11"], [])


@pytest.mark.parametrize("seconds", [TIMEOUT_SECONDS / 2 + 1, TIMEOUT_SECONDS + 1, 86400, -86400])
def test_no_lease_ends_after_the_store_was_away_or_its_clock_was_set(
    store: Store, clock: Clock, seconds: float
) -> None:
    """The first worker to report afterwards knows by its own heartbeat that the others could not report either."""
    store.heartbeat("host/w1")
    store.heartbeat("host/w2")
    leased(store, "a", "host/w1/11")
    clock.forward(seconds)
    assert store.heartbeat("host/w2") == ([], [])
    clock.forward(TIMEOUT_SECONDS / 2 - 1)
    assert store.heartbeat("host/w2") == ([], [])
    assert store.heartbeat("host/w1") == (["host/w1/11"], [])


def test_a_worker_that_starts_after_another_died_need_not_wait_again(store: Store, clock: Clock) -> None:
    store.heartbeat("host/w1")
    leased(store, "a", "host/w1/11")
    clock.forward(TIMEOUT_SECONDS)
    assert store.heartbeat("host/w2") == ([], [bell("a")])


def test_a_lease_that_an_older_version_has_ended_is_no_longer_the_workers(store: Store) -> None:
    """It knows no list of leases: the job stays in it, and is leased to another worker by now."""
    leased(store, "a", "host/w1/11")
    store.client.sadd(f"{PREFIX}leases:host/w2", "a", "b")
    assert store.end_leases("host/w2/11") == []
    assert (store.client.smembers(f"{PREFIX}leases:host/w2"), stats(store)["running"]) == (set(), 1)


# --- a process that runs several jobs ---------------------------------------------------------------------------------


@pytest.fixture
def batches(store: Store, clock: Clock) -> BatchStore:
    return BatchStore(store.client, now_ms=clock)


def leased_together(batches: BatchStore, holder: str, *, takes_suspect: bool = True) -> list[Lease]:
    tasks = {"payments": ["tasks.a"]}
    batch = batches.exchange(BatchRequest(holder, LEASE_SECONDS, tasks, 9, nonce(), takes_suspect=takes_suspect))
    assert batch is not None
    return list(batch.leases)


def outcomes(store: Store, name: str) -> list[str]:
    job = queries.find_job(store, name)
    assert job is not None
    return [attempt.get("outcome", "open") for attempt in job["attempts"]]


def test_none_of_the_jobs_that_a_dead_process_ran_together_loses_an_attempt(batches: BatchStore) -> None:
    assert len(leased_together(batches, "host/w1/11")) == 2
    assert sorted(it.job_id for it in batches.end_leases("host/w1/11")) == ["a", "b"]
    assert (outcomes(batches, "a"), outcomes(batches, "b")) == (["released"], ["released"])
    assert stats(batches) | {"expired": 0, "pending": 2} == stats(batches)


def test_afterwards_each_process_runs_one_of_them_at_a_time_beside_others(batches: BatchStore) -> None:
    leased_together(batches, "host/w1/11")
    batches.end_leases("host/w1/11")
    batches.record(Event("stripe", "evt_2", "test", b"{}"), [NewJob("c", "tasks.a", "payments")])
    first = leased_together(batches, "host/w1/12")
    assert [(it.suspect, it.attempt) for it in first] == [(True, 1), (False, 1)]
    assert leased_together(batches, "host/w1/12", takes_suspect=False) == []
    assert [it.suspect for it in leased_together(batches, "host/w1/13")] == [True]


def test_the_suspect_of_a_process_that_dies_again_loses_an_attempt_and_no_other_job_becomes_one(
    batches: BatchStore,
) -> None:
    leased_together(batches, "host/w1/11")
    batches.end_leases("host/w1/11")
    batches.record(Event("stripe", "evt_2", "test", b"{}"), [NewJob("c", "tasks.a", "payments")])
    suspect, _ = leased_together(batches, "host/w1/12")
    batches.end_leases("host/w1/12")
    assert (outcomes(batches, suspect.job_id), outcomes(batches, "c")) == (["released", "lost"], ["released"])
    assert sorted(it.suspect for it in leased_together(batches, "host/w1/13")) == [False, True]
    assert [it.suspect for it in leased_together(batches, "host/w1/14")] == [True]


@pytest.mark.parametrize("end", ["finish", "release", "fail"])
def test_a_suspect_that_has_ended_is_none_any_more(store: Store, batches: BatchStore, clock: Clock, end: str) -> None:
    leased_together(batches, "host/w1/11")
    store.end_leases("host/w1/11")
    (suspect,) = leased_together(batches, "host/w1/12")
    if end == "finish":
        store.finish(suspect)
        store.replay(suspect.job_id, "ada")
    elif end == "release":
        store.release(suspect)
    else:
        store.fail(suspect, "the peer is down", RetryAt(clock.ms))
        store.sweep(9, {})
    assert sorted(it.suspect for it in leased_together(batches, "host/w1/13")) == [False, True]


def _let_time_out(store: Store, clock: Clock) -> None:
    for _ in range(int(TIMEOUT_SECONDS) + 1):
        store.heartbeat("host/other")
        clock.forward(1)
    store.heartbeat("host/other")
