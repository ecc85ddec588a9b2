"""The workers' sweeps cost the store little, however many workers and events there are."""

from __future__ import annotations

from typing import Any

from inbox.event import Event
from inbox.job import NewJob
from inbox.queries import stats
from inbox.store import Store
from tasks import broker
from tests.conftest import Clock
from workers import sweep


def test_a_worker_does_not_sweep_if_another_has_just_done_so(store: Store, clock: Clock) -> None:
    counts = []
    for seconds in (0, 0.5, 0.5, 0.1, 3600, 0.5, -7200, 0.5, 0.5):
        clock.forward(seconds)
        sweep.sweep_if_due(store)
        counts.append(stats(store)["sweeps"])
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_what_is_due_and_does_not_fit_into_one_sweep_is_rung_at_once(store: Store, clock: Clock) -> None:
    both = Store(store.client, message=broker.task_message, now_ms=clock)
    jobs = [NewJob(f"j{n}", "tasks.a", "payments", {}, 5) for n in range(sweep.LIMIT + 10)]
    both.record(Event("stripe", "evt_1", "t", b"{}"), jobs)
    clock.forward(6)
    sweep.sweep_if_due(both)
    assert store.client.llen("payments") == len(jobs)


def test_a_sweep_looks_at_no_event_that_is_young(store: Store) -> None:
    for n in range(1000):
        store.record(Event("stripe", f"evt_{n}", "t", b"{}"), [])
    store.client.config_resetstat()
    store.sweep(200, {})
    calls: Any = store.client.info("commandstats")
    assert calls.get("cmdstat_exists", {"calls": 0})["calls"] <= 1
