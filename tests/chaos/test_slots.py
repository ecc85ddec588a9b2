"""Many jobs at once in one process (WORKER_SLOTS), with real processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dev.stack.servers import wait_until
from inbox import queries
from tests.chaos.conftest import SLOTS, World
from tests.chaos.test_backlog import Watch
from tests.support.stack import GRACE_SECONDS, Process

ONE = pytest.mark.parametrize("world", SLOTS[:1], indirect=True)
EACH = pytest.mark.parametrize(
    "world", [SLOTS[0], *(pytest.param(pair, marks=pytest.mark.matrix) for pair in SLOTS[1:])], indirect=True
)
LONG: Any = {"LEASE_SECONDS": "600", "JOB_TIME_LIMIT_SECONDS": "500", "RING_AGAIN_SECONDS": "600"}


def record_many(world: World, kind: str, number: int, ordering_key: str = "") -> list[str]:
    return [world.record(kind, f"{kind}{ordering_key}-{n}", ordering_key) for n in range(number)]


def hold(world: World, number: int, **settings: Any) -> tuple[Process, list[str]]:
    """A worker in the middle of so many jobs at once."""
    (world.stack.folder / "hold").touch()
    worker = world.stack.worker(WORKER_SLOTS="20", **{**LONG, **settings})
    jobs = record_many(world, "held", number)
    wait_until(lambda: len(held(world)) == number, seconds=120, what="all jobs to be held")
    return worker, jobs


def held(world: World) -> list[Path]:
    return list(world.stack.folder.glob("held-*"))


def pids(world: World, jobs: list[str]) -> set[int]:
    """The processes that ran the last attempts of these jobs."""
    found = [queries.find_job(world.store, job) for job in jobs]
    return {int(job["attempts"][-1]["holder"].rpartition("/")[2]) for job in found if job}


def effects(world: World, jobs: list[str]) -> list[int]:
    return [world.effects(job) for job in jobs]


def messages(worker: Process) -> int:
    """How many of its tasks Celery has run."""
    return worker.log.read_text().count("succeeded in")


@ONE
def test_jobs_that_wait_run_at_the_same_time(world: World) -> None:
    world.stack.worker(WORKER_SLOTS="20", HOLDFAST_TEST_MEETING="20")
    jobs = record_many(world, "meeting", 20)
    world.settle()
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 20


@ONE
def test_a_burst_costs_few_celery_messages_and_leaves_none(world: World) -> None:
    worker = world.stack.worker(WORKER_SLOTS="20", **LONG)
    jobs = record_many(world, "renewing", 1000)
    world.settle()
    assert world.store.client.llen("payments") == 0
    assert messages(worker) < 200
    assert sum(effects(world, jobs)) == 1000


@ONE
def test_messages_of_a_time_without_workers_are_removed_with_their_jobs(world: World) -> None:
    jobs = record_many(world, "renewing", 300)
    worker = world.stack.worker(WORKER_SLOTS="20", **LONG)
    world.settle()
    wait_until(lambda: world.store.client.llen("payments") == 0, seconds=60, what="the list to be empty")
    assert messages(worker) < 150
    assert sum(effects(world, jobs)) == 300


@ONE
def test_an_idle_process_is_woken_by_a_message(world: World) -> None:
    worker = world.stack.worker(**LONG)
    for n in range(3):
        world.record("renewing", f"evt_{n}")
        world.settle()
        wait_until(lambda: not is_polled(world), seconds=60, what="the process to be idle")
    assert messages(worker) >= 2  # the process may have found the first job itself, as it does after its start


def is_polled(world: World) -> bool:
    return world.store.client.hget("{holdfast}:slots:payments", "quiet") not in (b"0", None)


@ONE
def test_jobs_with_one_ordering_key_never_run_at_the_same_time(world: World) -> None:
    world.stack.worker(processes=2)
    jobs = [*record_many(world, "exclusive", 15, "k1"), *record_many(world, "exclusive", 15, "k2")]
    world.settle()
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 30


@ONE
def test_a_job_in_the_main_thread_keeps_none_from_the_slots(world: World) -> None:
    """While it runs, Celery delivers no message to the process."""
    (world.stack.folder / "hold").touch()
    world.stack.worker(**LONG)
    single = world.record("single", "evt_single")
    wait_until(lambda: len(held(world)) == 1, seconds=60, what="the job to be held")
    plain = world.record("plain", "evt_plain")
    world.settle(unfinished=1)
    assert (world.effects(plain), world.state(single)) == (1, "running")
    world.release_held_job()
    world.settle()
    assert world.outcomes(single) == ["succeeded"]


@ONE
def test_a_worker_without_slots_shares_a_queue_with_one_that_has_them(world: World) -> None:
    world.stack.worker(WORKER_SLOTS="1")
    world.stack.worker()
    jobs = record_many(world, "renewing", 100)
    world.settle()
    assert effects(world, jobs) == [1] * 100


@EACH
def test_no_job_of_a_killed_process_loses_an_attempt(world: World) -> None:
    _, jobs = hold(world, 20)
    (pid,) = pids(world, jobs)
    os.kill(pid, signal.SIGKILL)
    world.release_held_job()
    world.settle()  # in less than the 600 s of the leases
    assert effects(world, jobs) == [1] * 20
    assert [world.outcomes(job) for job in jobs] == [["released", "succeeded"]] * 20


@EACH
def test_a_job_that_kills_its_process_among_others_becomes_a_dead_letter_alone(world: World) -> None:
    jobs = record_many(world, "renewing", 5)
    deadly = world.record("deadly", "evt_deadly")
    more = record_many(world, "plain", 10)
    world.stack.worker(WORKER_SLOTS="20", MAX_ATTEMPTS="3")
    world.settle()
    assert (world.state(deadly), world.outcomes(deadly).count("lost")) == ("dead", 3)
    assert effects(world, [*jobs, *more]) == [1] * 15
    assert all("lost" not in world.outcomes(job) for job in [*jobs, *more])


@EACH
def test_sigterm_lets_jobs_finish_in_time(world: World) -> None:
    worker, jobs = hold(world, 10)
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: worker.has_logged("Hitting Ctrl+C"), seconds=60, what="the worker to stop")
    world.release_held_job()
    assert worker.process.wait(GRACE_SECONDS) == 0
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 10


@EACH
def test_sigterm_returns_jobs_that_do_not_finish_in_time_and_leases_no_more(world: World) -> None:
    worker, jobs = hold(world, 10)
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_polled(world), seconds=60, what="the worker to stop leasing")
    late = world.record("held", "evt_late")
    assert worker.process.wait(GRACE_SECONDS) == 0
    assert [(world.state(job), world.outcomes(job)) for job in jobs] == [("pending", ["released"])] * 10
    assert (world.state(late), world.outcomes(late)) == ("pending", [])
    world.release_held_job()
    world.stack.worker()
    world.settle()
    assert effects(world, [*jobs, late]) == [1] * 11


@ONE
def test_a_job_that_overruns_fails_and_its_process_is_replaced_when_the_others_are_done(world: World) -> None:
    (world.stack.folder / "hold").touch()
    stubborn = world.record("stubborn", "evt_stubborn")
    world.stack.worker()
    world.settle()
    found = queries.find_job(world.store, stubborn)
    assert found is not None
    assert world.outcomes(stubborn) == ["failed", "succeeded"]
    assert found["attempts"][0]["reason"] == "it exceeded its time limit and did not stop"
    assert len({attempt["holder"] for attempt in found["attempts"]}) == 2
    assert world.effects(stubborn) == 1


@ONE
def test_a_process_that_uses_too_much_memory_is_replaced_and_loses_no_job(world: World) -> None:
    worker = world.stack.worker(WORKER_SLOTS="2")
    jobs = record_many(world, "growing", 8)
    world.settle()
    wait_until(lambda: worker.has_logged("too much memory"), seconds=60, what="the process to notice it")
    late = world.record("renewing", "evt_late")
    world.settle()
    assert [world.outcomes(job) for job in [*jobs, late]] == [["succeeded"]] * 9
    assert not worker.has_logged("WorkerLostError")


@ONE
def test_running_jobs_outlive_a_restart_of_the_store(world: World) -> None:
    _, jobs = hold(world, 10)
    world.valkey.kill()
    world.release_held_job()
    world.valkey.start()
    more = record_many(world, "plain", 20)
    world.settle()
    assert effects(world, [*jobs, *more]) == [1] * 30
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 10


@ONE
def test_jobs_that_end_while_the_store_hangs_are_finished_when_it_is_back(world: World) -> None:
    _, jobs = hold(world, 10)
    world.valkey.freeze()
    world.release_held_job()
    wait_until(lambda: "wait for the store" in world.stack.log_tails(200), seconds=60, what="a call to fail")
    world.valkey.resume()
    world.settle()
    assert (effects(world, jobs), [world.state(job) for job in jobs]) == ([1] * 10, ["succeeded"] * 10)


@ONE
def test_flower_receives_events_of_every_job(world: World) -> None:
    with Watch(world.valkey.url) as seen:
        world.stack.worker(TASK_EVENTS="on")
        jobs = [*record_many(world, "renewing", 20), world.record("hopeless")]
        world.settle()
        found = [queries.find_job(world.store, job) for job in jobs]
        ids = [it["attempts"][-1]["task_id"] for it in found if it]
        wait_until(lambda: set(ids[:20]) <= seen.ids("task-succeeded"), seconds=60, what="all to be seen")
        wait_until(lambda: ids[20] in seen.ids("task-failed"), seconds=60, what="the failure to be seen")
