"""Handlers that use up all memory, or leak it; and what an idle worker needs."""

from __future__ import annotations

import pytest

from inbox import queries
from tests.chaos.conftest import World

pytestmark = pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)


def test_a_job_that_runs_out_of_memory_becomes_dead_and_others_continue(world: World) -> None:
    hungry = world.record("hungry", "evt_1")
    plain = [world.record("plain", f"evt_{n}") for n in range(2, 6)]
    worker = world.stack.worker(MAX_ATTEMPTS="2", HOLDFAST_TEST_MEMORY="300000000")
    world.settle()
    assert (world.state(hungry), world.outcomes(hungry)) == ("dead", ["failed", "failed"])
    assert worker.has_logged("MemoryError")
    assert [world.effects(job) for job in (hungry, *plain)] == [0, 1, 1, 1, 1]
    assert worker.alive()


def test_a_pool_process_that_uses_too_much_memory_is_replaced_and_loses_no_job(world: World) -> None:
    jobs = [world.record("growing", f"evt_{n}") for n in range(8)]
    world.stack.worker()
    world.settle()
    found = [queries.find_job(world.store, job) for job in jobs]
    assert len({job["attempts"][-1]["holder"] for job in found if job}) > 1
    assert [world.outcomes(job) for job in jobs] == [["succeeded"]] * 8


def test_every_idle_pool_process_shares_most_of_its_memory_with_the_main_process(world: World) -> None:
    worker = world.stack.worker(processes=3)
    memory = [child.memory_full_info() for child in worker.children()]
    assert len(memory) == 3
    assert max(child.uss / child.rss for child in memory) < 0.3
