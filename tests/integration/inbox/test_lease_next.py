"""Leasing many jobs at once, and which doorbells that makes unnecessary, on a real Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from inbox.batch import BatchStore
from inbox.client import connect
from inbox.errors import LeaseLost, StoreUnavailable
from inbox.event import Event
from inbox.job import Batch, BatchRequest, Doorbell, Lease, NewJob
from inbox.queries import stats
from inbox.rules import Rules
from inbox.store import PREFIX, Store
from inbox.wire import nonce
from tasks.broker import task_message
from tests.conftest import Clock

TASKS = {"payments": ["tasks.a"], "fulfilment": ["tasks.b"]}
ROOM = {"payments": 100, "fulfilment": 100}


@pytest.fixture
def batches(store: Store, clock: Clock) -> BatchStore:
    return BatchStore(store.client, now_ms=clock)


def record(store: Store, *names: str, task: str = "tasks.a", queue: str = "payments", key: str = "") -> list[Doorbell]:
    bells = [
        store.record(Event("stripe", f"evt_{name}", "test", b"{}"), [NewJob(name, task, queue, ordering_key=key)])
        for name in names
    ]
    return [bell for some in bells for bell in some or []]


def ask(batches: BatchStore, number: int, **more: Any) -> Batch:
    request = {"tasks": TASKS, "nonce": nonce(), **more}
    batch = batches.exchange(BatchRequest("host/w1/11", 60, number=number, **request))
    assert batch is not None
    return batch


def names(leases: Sequence[Lease]) -> list[str]:
    return [lease.job_id for lease in leases]


def bell(name: str, task: str = "tasks.a", queue: str = "payments") -> Doorbell:
    return Doorbell(name, task, queue)


def test_the_oldest_jobs_of_the_queues_take_turns(batches: BatchStore, clock: Clock) -> None:
    for n in range(4):
        record(batches, f"a{n}")
        clock.forward(0.001)
    record(batches, "b0", "b1", task="tasks.b", queue="fulfilment")
    batch = ask(batches, 5)
    assert names(batch.leases) == ["a0", "b0", "a1", "b1", "a2"]
    assert batch.left
    assert all(lease.first and lease.attempt == 1 and lease.task_id for lease in batch.leases)
    assert names(ask(batches, 5).leases) == ["a3"]


def test_jobs_of_other_tasks_are_passed_over(batches: BatchStore, clock: Clock) -> None:
    record(batches, *(f"x{n}" for n in range(150)), task="tasks.x")
    clock.forward(1)
    record(batches, "a0")
    batch = ask(batches, 2)
    assert (names(batch.leases), batch.left) == (["a0"], False)


def test_while_very_many_jobs_of_other_tasks_are_ahead_doorbells_are_rung_and_lead_to_the_job(
    batches: BatchStore, clock: Clock
) -> None:
    record(batches, *(f"x{n}" for n in range(250)), task="tasks.x")
    clock.forward(1)
    assert record(batches, "a0") == [bell("a0")]
    assert names(ask(batches, 2, polls=True).leases) == []
    assert record(batches, "a1") == [bell("a1")]
    assert names(ask(batches, 1, polls=True, announced=["a0", "a1"]).leases) == ["a0"]


def test_a_job_whose_doorbell_came_early_overtakes_no_other(batches: BatchStore, clock: Clock) -> None:
    for name in ("a0", "a1", "a2"):
        record(batches, name)
        clock.forward(1)
    assert names(ask(batches, 2, announced=["a2"]).leases) == ["a0", "a1"]


def test_a_job_that_is_announced_and_waits_is_leased_once(batches: BatchStore) -> None:
    record(batches, "a0", "a1")
    assert sorted(names(ask(batches, 9, announced=["a1", "a0", "a1"]).leases)) == ["a0", "a1"]


def test_jobs_with_one_ordering_key_are_leased_one_after_another(batches: BatchStore) -> None:
    record(batches, "a0", "a1", "a2", key="cus_1")
    (first,) = ask(batches, 9, polls=True).leases
    assert ask(batches, 9, polls=True).leases == []
    assert Store.finish(batches_at_once(batches), first) == []  # no doorbell, because the queue is polled
    assert names(ask(batches, 9, polls=True).leases) == ["a1"]


@pytest.mark.parametrize("end", ["release", "death", "finish"])
def test_a_job_whose_turn_has_come_before_does_not_wait_for_the_backlog_again(
    batches: BatchStore, clock: Clock, end: str
) -> None:
    record(batches, "a0", "a1", key="cus_1")
    clock.forward(1)
    record(batches, *(f"b{n}" for n in range(9)))
    (first,) = ask(batches, 1).leases
    assert "a1" not in names(ask(batches, 1).leases), "it waits for its ordering key"
    clock.forward(30)
    if end == "death":
        batches.end_leases("host/w1/11")
    else:
        getattr(Store, end)(batches_at_once(batches), first)
    assert names(ask(batches, 1).leases) == ["a1" if end == "finish" else "a0"]


def batches_at_once(batches: BatchStore) -> BatchStore:
    def exchange() -> None:
        batches.exchange(None)

    batches.on_call = exchange
    return batches


def test_a_request_that_is_sent_again_gets_the_same_leases(batches: BatchStore) -> None:
    record(batches, "a0", "a1", "a2")
    same = nonce()
    first, again = ask(batches, 2, nonce=same), ask(batches, 2, nonce=same)
    assert [(lease.job_id, lease.token, lease.task_id) for lease in first.leases] == [
        (lease.job_id, lease.token, lease.task_id) for lease in again.leases
    ]
    assert names(ask(batches, 2).leases) == ["a2"]


def test_no_doorbell_is_rung_while_a_worker_polls_and_every_one_after_it_has_stopped(
    batches: BatchStore, clock: Clock
) -> None:
    assert record(batches, "a0") == [bell("a0")]
    ask(batches, 9, polls=True)
    assert record(batches, "a1") == []
    assert record(batches, "x0", task="tasks.x") == [bell("x0", "tasks.x")]
    clock.forward(0.9)
    assert record(batches, "a2") == []
    ask(batches, 0)
    assert record(batches, "a3") == [bell("a3")]


def test_a_worker_that_stops_polling_without_a_word_costs_two_seconds(batches: BatchStore, clock: Clock) -> None:
    ask(batches, 9, polls=True)
    record(batches, "a0")
    assert batches.sweep(9, ROOM) == []
    clock.forward(1)
    assert record(batches, "a1") == [bell("a1")]
    assert batches.sweep(9, ROOM) == [bell("a0")]


def test_a_sweep_rings_for_few_of_the_jobs_that_arrived_while_a_worker_polled(
    batches: BatchStore, clock: Clock
) -> None:
    ask(batches, 9, polls=True)
    record(batches, *(f"a{n}" for n in range(50)))
    clock.forward(1)
    assert len(batches.sweep(200, ROOM)) == 10


@pytest.mark.parametrize("seconds", [-86400, -2])
def test_a_clock_that_is_set_back_suppresses_no_doorbell(batches: BatchStore, clock: Clock, seconds: float) -> None:
    ask(batches, 9, polls=True)
    clock.forward(seconds)
    assert record(batches, "a0") == [bell("a0")]


def test_one_doorbell_a_second_is_rung_for_other_workers_if_jobs_are_left(batches: BatchStore, clock: Clock) -> None:
    record(batches, *(f"a{n}" for n in range(5)))
    assert ask(batches, 1, polls=True).bells == [bell("a1")]
    assert ask(batches, 1, polls=True).bells == []
    clock.forward(1)
    assert ask(batches, 1, polls=True).bells == [bell("a3")]


def test_stale_messages_of_the_tasks_leave_the_brokers_list_and_others_stay(batches: BatchStore, clock: Clock) -> None:
    same = BatchStore(batches.client, message=task_message, now_ms=clock)
    record(same, *(f"a{n}" for n in range(120)))
    record(same, "x0", task="tasks.x")
    record(same, "a120")
    ask(same, 10)
    assert same.client.llen("payments") == 112  # as many as were leased
    ask(same, 10, polls=True)
    assert same.client.llen("payments") == 2
    message: Any = same.client.lindex("payments", -1)
    assert b"tasks.x" in message


def test_the_calls_of_many_jobs_share_a_round_trip_and_each_gets_its_own_reply(batches: BatchStore) -> None:
    record(batches, "a0", "a1")
    first, second = ask(batches, 2).leases
    batches.client.hincrby(f"{PREFIX}job:a0", "token", 1)  # another worker has it
    with pytest.raises(LeaseLost):
        batches_at_once(batches).finish(first)
    assert batches.finish(second) == []
    assert stats(batches)["succeeded"] == 1


def test_calls_fail_if_the_store_is_away(clock: Clock) -> None:
    away = BatchStore(connect("redis://127.0.0.1:1/0", timeout_seconds=0.1), Rules(), now_ms=clock)

    def exchange() -> None:
        with pytest.raises(StoreUnavailable) as unavailable:
            away.exchange(None)
        assert away.waiting()
        away.fail_waiting(unavailable.value)

    away.on_call = exchange
    with pytest.raises(StoreUnavailable):
        away.finish(Lease("a0", 1, 1, {}, "stripe", "evt_1", "test", b"", 0))
    assert not away.waiting()
