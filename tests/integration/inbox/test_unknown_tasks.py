"""A job whose task or queue no running version knows ends as a dead letter, and shows in the figures until then."""

from __future__ import annotations

import pytest

from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.queries import find_job, stats
from inbox.statistics import unfinished_by_queue, with_unknown_queues
from inbox.store import Store
from inbox.worker_registry import announce_version
from tests.conftest import Clock
from tests.support import record_model

ROOM = {"payments": 100}
GONE = [NewJob("task", "tasks.gone", "payments"), NewJob("queue", "tasks.a", "gone")]


def sweep_for(store: Store, clock: Clock, minutes: int, *tasks: str) -> list[str]:
    """The jobs rung in that time, by a worker that knows these tasks and the queue `payments`."""
    rung = []
    for _ in range(6 * minutes):
        clock.forward(10)
        announce_version(store, tasks, ["payments"])
        rung += [bell.job_id for bell in store.sweep(10, ROOM)]
    return rung


@pytest.mark.parametrize(("job", "what"), [(GONE[0], "task tasks.gone"), (GONE[1], "queue gone")])
def test_a_job_that_no_running_version_knows_is_dead_after_an_hour(
    store: Store, clock: Clock, job: NewJob, what: str
) -> None:
    store.record(Event("stripe", "evt_1", "t", b"{}"), [job])
    rung = sweep_for(store, clock, 59, "tasks.a")
    assert (55 <= len(rung) <= 60, stats(store)["dead"]) == (True, 0), "once a minute: it may be known all the same"
    sweep_for(store, clock, 3, "tasks.a")
    found = find_job(store, job.id)
    assert found is not None
    assert (found["state"], found["reason"]) == ("dead", f"no running worker knows the {what}")
    record_model.check(record_model.read(store.client), clock.ms)
    assert sweep_for(store, clock, 3, "tasks.a") == []


def test_a_dead_letter_of_an_unknown_task_runs_after_a_replay(store: Store, clock: Clock) -> None:
    store.record(Event("stripe", "evt_1", "t", b"{}"), GONE[:1])
    sweep_for(store, clock, 65)
    assert stats(store)["dead"] == 1
    store.replay("task", "ada")
    sweep_for(store, clock, 30)
    lease = store.lease("task", "host-1/1", 60)
    assert isinstance(lease, Lease)
    store.finish(lease)
    assert stats(store) | {"dead": 0, "succeeded": 1} == stats(store)


def test_a_rolling_upgrade_buries_no_job_of_a_new_task(store: Store, clock: Clock) -> None:
    """One worker of the new version runs; those of the old one take its doorbells and do not know the task."""
    store.record(Event("stripe", "evt_1", "t", b"{}"), GONE[:1])
    rung = []
    for _ in range(180):
        announce_version(store, ["tasks.gone"], ["payments"])
        rung += sweep_for(store, clock, 1)
    assert (stats(store)["dead"], len(rung) >= 180 * 3) == (0, True)


def test_a_job_that_a_worker_of_an_earlier_version_has_tried_is_not_unanswered(store: Store, clock: Clock) -> None:
    store.record(Event("stripe", "evt_1", "t", b"{}"), GONE[:1])
    for _ in range(3):
        sweep_for(store, clock, 45)
        lease = store.lease("task", "host-1/1", 60)
        assert isinstance(lease, Lease)
        store.release(lease)
    assert stats(store)["dead"] == 0


def test_after_an_outage_of_all_workers_no_job_is_unknown(store: Store, clock: Clock) -> None:
    store.record(Event("stripe", "evt_1", "t", b"{}"), [NewJob("j1", "tasks.a", "payments")])
    sweep_for(store, clock, 1, "tasks.a")
    clock.forward(3 * 86400)
    assert "j1" in sweep_for(store, clock, 120, "tasks.a")
    assert stats(store)["dead"] == 0


def test_the_figures_show_a_queue_that_no_version_knows_while_it_has_jobs(store: Store) -> None:
    store.record(Event("stripe", "evt_1", "t", b"{}"), GONE)
    names = with_unknown_queues(store, ["payments", "documents"])
    assert names == ["payments", "documents", "gone"]
    assert {name: number for name, (number, _) in unfinished_by_queue(store, names).items()} == {
        "payments": 1,
        "documents": 0,
        "gone": 1,
    }
    lease = store.lease("queue", "host-1/1", 60)
    assert isinstance(lease, Lease)
    store.finish(lease)
    assert with_unknown_queues(store, ["payments"]) == ["payments"]
