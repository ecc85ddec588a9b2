"""How soon a job runs again after its process or its whole worker died, with real processes. How often: exactly once.

Leases last ten minutes here, longer than any of these tests, except where a test is about their end.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

from dev.stack.servers import wait_until
from inbox import queries
from tests.chaos.conftest import PAIRS, World

LONG: Any = {
    "LEASE_SECONDS": "600",
    "JOB_TIME_LIMIT_SECONDS": "500",
    "RING_AGAIN_SECONDS": "600",
    "WORKER_TIMEOUT_SECONDS": "5",
}
SHORT: Any = {"LEASE_SECONDS": "6", "JOB_TIME_LIMIT_SECONDS": "5", "WORKER_TIMEOUT_SECONDS": "600"}


def holder_pid(world: World, job: str) -> int:
    """The pid of the process that runs the job."""
    found = queries.find_job(world.store, job)
    assert found is not None
    return int(found["attempts"][-1]["holder"].rpartition("/")[2])


@pytest.mark.parametrize("processes", [1, 2])
def test_the_job_of_a_killed_process_runs_again_without_waiting_for_its_lease(world: World, processes: int) -> None:
    _, job = world.busy_worker(processes=processes, **LONG)
    os.kill(holder_pid(world, job), signal.SIGKILL)
    world.settle()  # in less than the 600 s of the lease
    assert (world.effects(job), world.outcomes(job)) == (1, ["lost", "succeeded"])


def test_the_job_of_a_killed_worker_runs_again_in_another_without_waiting_for_its_lease(world: World) -> None:
    first, job = world.busy_worker(**LONG)
    first.kill()
    world.stack.worker(**LONG)
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["lost", "succeeded"])


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_process_that_dies_while_the_store_is_away_is_noticed_when_it_is_back(world: World) -> None:
    worker, job = world.busy_worker(**LONG)
    process = psutil.Process(holder_pid(world, job))
    world.valkey.kill()
    process.kill()
    wait_until(lambda: worker.has_logged("no heartbeat"), seconds=60, what="the worker to notice it")
    world.valkey.start()
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["lost", "succeeded"])


def test_a_frozen_worker_that_comes_back_changes_nothing_and_works_again(world: World) -> None:
    settings = LONG | {"RING_AGAIN_SECONDS": "2"}  # RabbitMQ may deliver the doorbell to the frozen worker
    sleeper, job = world.busy_worker(**settings)
    with sleeper.frozen():
        world.stack.worker(**settings)
        world.settle()
        world.release_held_job()
    wait_until(lambda: sleeper.has_logged('"outcome":"lost"'), seconds=120, what="the rejected finish")
    assert (world.effects(job), world.outcomes(job)) == (1, ["lost", "succeeded"])


@pytest.mark.parametrize("world", PAIRS, indirect=True)
def test_the_job_of_a_frozen_process_runs_again_when_its_lease_expires(world: World) -> None:
    """The last resort: the worker's main process lives and sees no death, and its heartbeats go on."""
    _, job = world.busy_worker(processes=2, **SHORT)
    frozen = psutil.Process(holder_pid(world, job))
    frozen.suspend()
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["lost", "succeeded"])
