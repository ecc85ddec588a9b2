"""A worker with a backlog runs several jobs in one Celery task; they do not affect each other."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from dev.stack.servers import wait_until
from inbox import queries
from tasks.broker import app
from tests.chaos.conftest import WITHOUT_SLOTS, World

PATIENT = {"LEASE_SECONDS": "60", "JOB_TIME_LIMIT_SECONDS": "50", "RING_AGAIN_SECONDS": "3600"}


def tasks_of(world: World, jobs: list[str]) -> list[str]:
    """Celery's task id of each job's last attempt."""
    found = [queries.find_job(world.store, job) for job in jobs]
    return [one["attempts"][-1]["task_id"] for one in found if one]


@WITHOUT_SLOTS
def test_each_job_of_a_backlog_runs_once_if_the_worker_is_killed(world: World) -> None:
    jobs = [world.record("plain", f"evt_{n}") for n in range(9)]
    world.stack.worker(HOLDFAST_TEST_DIE=f"in {jobs[4]}")
    stats = world.settle()
    assert [world.effects(job) for job in jobs] == [1] * 9
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 4 + [["lost", "succeeded"]] + [["succeeded"]] * 4
    assert stats | {"succeeded": 18, "dead": 0} == stats


@WITHOUT_SLOTS
def test_a_job_that_kills_its_worker_costs_other_jobs_no_attempt(world: World) -> None:
    before, deadly, behind = (
        world.record(kind, kind + name)
        for kind, name in zip(("plain", "deadly", "plain"), ("_1", "_2", "_3"), strict=True)
    )
    world.stack.worker(MAX_ATTEMPTS="2")
    world.settle()
    assert world.outcomes(deadly) == ["lost", "lost"]
    assert (world.outcomes(before), world.outcomes(behind)) == (["succeeded"], ["succeeded"])


def test_failing_jobs_of_a_backlog_do_not_affect_others(world: World) -> None:
    kinds = ["plain", "failing", "plain", "hopeless", "plain"]
    jobs = [world.record(kind, f"evt_{n}") for n, kind in enumerate(kinds)]
    world.stack.worker()
    world.settle()
    assert [world.outcomes(job) for job in jobs] == [
        ["succeeded"],
        ["failed", "failed", "succeeded"],
        ["succeeded"],
        ["failed"],
        ["succeeded"],
    ]


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_slow_job_of_a_backlog_delays_no_other(world: World) -> None:
    (world.stack.folder / "hold").touch()
    world.stack.environment |= PATIENT
    kinds = ["plain", "slow", "plain", "plain"]
    jobs = [world.record(kind, f"evt_{n}") for n, kind in enumerate(kinds)]
    world.stack.worker()
    world.wait_for_held_job()
    world.stack.worker()
    world.settle(unfinished=1)
    assert [world.state(job) for job in jobs] == ["succeeded", "running", "succeeded", "succeeded"]


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_each_job_of_a_backlog_has_its_whole_time_limit(world: World) -> None:
    jobs = [world.record("waiting", f"evt_{n}") for n in range(3)]
    world.stack.worker(LEASE_SECONDS="60", JOB_TIME_LIMIT_SECONDS="10", RING_AGAIN_SECONDS="3600")  # soft limit: 7.5 s
    world.settle()
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 3


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_backlog_is_processed_in_several_celery_tasks(world: World) -> None:
    """Otherwise a worker of two queues would neglect the other one, and a stop would wait for the whole backlog."""
    jobs = [world.record("plain", f"evt_{n}") for n in range(300)]
    world.stack.worker(queues="payments")
    world.settle()
    said = (world.stack.folder / "worker-0.log").read_text()
    assert 3 <= said.count("succeeded in") < 300  # Celery tasks
    assert len(set(tasks_of(world, jobs))) == 300


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_jobs_with_one_ordering_key_wait_for_the_backlog_once(world: World) -> None:
    """Each of them waits for the one before it, but not behind jobs that arrived later."""
    world.stack.environment |= PATIENT
    keyed = [world.record("plain", f"evt_{n}", ordering_key="cus_1") for n in range(12)]
    others = [world.record("plain", f"evt_other_{n}") for n in range(150)]
    world.stack.worker(processes=4)
    world.settle()
    assert max(world.finished(job) for job in keyed) < max(world.finished(job) for job in others)


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_flower_receives_events_of_every_job_of_a_backlog(world: World) -> None:
    kinds = ["plain"] * 20 + ["hopeless"]
    jobs = [world.record(kind, f"evt_{n}") for n, kind in enumerate(kinds)]
    with Watch(world.valkey.url) as seen:
        world.stack.worker(TASK_EVENTS="on")
        world.settle()
        done = set(tasks_of(world, jobs[:20]))
        wait_until(lambda: done <= seen.ids("task-succeeded"), seconds=20, what="all to be seen")
        assert seen.ids("task-failed") == set(tasks_of(world, jobs[20:]))
        assert {one["args"] for one in seen.events if one["type"] == "task-received"} >= {repr([job]) for job in jobs}
        failed = next(one for one in seen.events if one["type"] == "task-failed")
    assert failed["exception"] == "AttemptFailed('the invoice has no customer')"


class Watch:
    """Receives Celery's events, as Flower does."""

    def __init__(self, url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._url, self._over = url, False
        self._thread = threading.Thread(target=self._listen)

    def ids(self, kind: str) -> set[str]:
        return {event["uuid"] for event in self.events if event["type"] == kind}

    def __enter__(self) -> Watch:
        self._thread.start()
        time.sleep(0.5)  # to subscribe
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def _listen(self) -> None:
        with app.connection(self._url) as connection:
            receiver = app.events.Receiver(connection, handlers={"*": self.events.append})
            while not self._over:
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except TimeoutError:
                    continue
