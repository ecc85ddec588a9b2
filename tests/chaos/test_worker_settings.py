"""The failures that celeryconfig.py guards against, caused in real workers."""

from __future__ import annotations

import base64
import json
import pickle
import time
from pathlib import Path

import pytest

from dev.stack.servers import wait_until
from inbox import queries
from inbox.event import Event
from inbox.job import NewJob
from inbox.store import PREFIX
from tasks.broker import task_message
from tests.chaos.conftest import World

pytestmark = pytest.mark.parametrize(
    "world", ["redis-sqlite"], indirect=True
)  # most of these tests are about this transport


def reasons(world: World, job_id: str) -> list[str]:
    found = queries.find_job(world.store, job_id)
    return [attempt.get("reason", "") for attempt in found["attempts"]] if found else []


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("poison", ["pickle", "unknown task"])
def test_malicious_messages_are_skipped_and_never_unpickled(world: World, poison: str, tmp_path: Path) -> None:
    bad = json.loads(task_message(NewJob("j", "tests.support.handlers.plain", "payments")))
    if poison == "pickle":
        bad |= {
            "content-type": "application/x-python-serialize",
            "content-encoding": "binary",
            "body": base64.b64encode(pickle.dumps(Bomb(tmp_path / "unpickled"))).decode(),
        }
    else:
        bad["headers"]["task"] = "tasks.nobody.knows"
    world.store.client.lpush("payments", json.dumps(bad))
    job = world.record("plain")
    world.stack.worker()
    world.settle()
    assert (world.effects(job), (tmp_path / "unpickled").exists()) == (1, False)


def test_the_rings_for_a_task_that_no_running_worker_knows_are_counted(world: World) -> None:
    """After sixty of them, one a minute, it is a dead letter: see tests/integration/inbox/test_unknown_tasks.py."""
    gone = NewJob("stripe:evt_1:gone", "tasks.gone", "payments")
    world.store.record(Event("stripe", "evt_1", "test.gone", b"{}"), [gone])
    job = world.record("plain", "evt_2")
    world.stack.worker()
    world.settle(unfinished=1)
    key = f"{PREFIX}job:{gone.id}"
    wait_until(lambda: world.store.client.hget(key, "unanswered") == b"0:1", seconds=60, what="a ring in vain")
    assert (world.effects(job), world.state(gone.id)) == (1, "pending")


def test_an_invalid_message_costs_only_a_restart(world: World) -> None:
    """kombu crashes on it, but has removed it from the queue: after a restart the worker continues without it."""
    world.store.client.lpush("payments", "no JSON")
    job = world.record("plain")
    poisoned = world.stack.worker()
    assert poisoned.process.wait(20) != 0
    world.stack.worker()
    world.settle()
    assert world.effects(job) == 1


def test_a_job_over_its_soft_time_limit_fails_with_a_recorded_reason(world: World) -> None:
    (world.stack.folder / "hold").touch()
    job = world.record("slow")
    world.stack.worker()
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["failed", "succeeded"])
    assert reasons(world, job)[0].startswith("SoftTimeLimitExceeded at tests/support/handlers.py:")


def test_a_job_that_ignores_its_soft_time_limit_is_stopped_before_its_lease_expires(world: World) -> None:
    (world.stack.folder / "hold").touch()
    job = world.record("stubborn")
    worker = world.stack.worker(LEASE_SECONDS="20")  # up to 5 s to record the reason
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["failed", "succeeded"])
    assert reasons(world, job)[0] == "it exceeded its time limit and did not stop"
    assert worker.has_logged("Hard time limit (5.2s) exceeded")


def test_a_busy_worker_leaves_the_next_message_to_an_idle_one(world: World) -> None:
    (world.stack.folder / "hold").touch()
    patient = {"LEASE_SECONDS": "60", "JOB_TIME_LIMIT_SECONDS": "50", "RING_AGAIN_SECONDS": "3600"}
    world.stack.environment |= patient
    world.stack.worker()
    held = world.record("slow", "evt_held")
    world.wait_for_held_job()
    time.sleep(1)  # enough time to fetch another message if it prefetched
    jobs = [world.record("plain", f"evt_{n}") for n in range(3)]
    world.stack.worker()
    world.settle(unfinished=1)
    assert ([world.effects(job) for job in jobs], world.state(held)) == ([1, 1, 1], "running")


def test_a_worker_started_before_its_broker_waits_for_it(world: World) -> None:
    world.valkey.kill()
    worker = world.stack.worker(ready=False)
    wait_until(lambda: worker.has_logged("Cannot connect to redis"), seconds=120, what="the worker to miss its broker")
    world.valkey.start()
    job = world.record("plain")
    world.settle()
    assert world.effects(job) == 1


def test_a_worker_survives_a_redis_that_hangs(world: World) -> None:
    world.stack.worker()
    world.valkey.freeze()
    time.sleep(8)  # longer than socket_timeout
    world.valkey.resume()
    job = world.record("plain")
    world.settle()
    assert world.effects(job) == 1


def test_a_worker_drains_a_store_that_is_full(world: World) -> None:
    """Celery's own list of unacknowledged messages cannot be written in a full store."""
    worker = world.stack.worker()
    with worker.frozen():
        jobs = [world.record("plain", f"evt_{n}") for n in range(10)]
        world.store.client.config_set("maxmemory", "1mb")
    try:
        stats = world.settle()
    finally:
        world.store.client.config_set("maxmemory", "0")
    assert [world.effects(job) for job in jobs] == [1] * 10
    assert stats | {"dead": 0} == stats
    assert worker.alive()
