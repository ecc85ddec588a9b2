"""A crash between any two durable steps, with real processes and SIGKILL: every job has its effect exactly once.

The kill points run on every pair of broker and database, the rest on Redis with SQLite and on RabbitMQ (where it is
installed) with Postgres.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
import requests

from dev.stack.servers import wait_until
from inbox import queries
from settings import SLICE_SECONDS
from tests.chaos.conftest import PAIRS, WITHOUT_SLOTS, World
from tests.support.peers import Answer, Peer
from tests.support.signed_deliveries import API_KEY, signed_by_stripe, stripe_event
from tests.support.stack import GRACE_SECONDS

BEARER = {"Authorization": f"Bearer {API_KEY}"}
KILL_POINTS = [
    "after the pop, before the lease",
    "after the lease",
    "before the effect",
    "in the handler",
    "after the SQL commit, before finish",
    "before finish",
    "after finish",
]


@pytest.mark.parametrize("world", PAIRS, indirect=True)
@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_job_runs_once_if_its_worker_is_killed_at_any_step(world: World, point: str) -> None:
    job = world.record("plain")
    world.stack.worker(HOLDFAST_TEST_DIE=point)
    stats = world.settle()
    assert (world.stack.folder / f"died-{point}").exists()
    follow = "stripe:evt_1:follow"
    assert (world.effects(job), world.effects(follow)) == (1, 1)
    assert stats | {"succeeded": 2, "dead": 0} == stats


@pytest.mark.parametrize(
    ("point", "kind", "outcomes"),
    [
        ("before the failure is recorded", "failing", ["lost", "failed", "succeeded"]),
        ("after the failure is recorded", "failing", ["failed", "failed", "succeeded"]),
        ("before renew", "renewing", ["lost", "succeeded"]),
        ("after renew", "renewing", ["lost", "succeeded"]),
    ],
)
def test_a_worker_killed_around_another_call_to_the_record_costs_at_most_one_attempt(
    world: World, point: str, kind: str, outcomes: list[str]
) -> None:
    job = world.record(kind)
    world.stack.worker(HOLDFAST_TEST_DIE=point)
    world.settle()
    assert (world.died(point), world.effects(job), world.outcomes(job)) == (True, 1, outcomes)


@pytest.mark.parametrize("world", ["redis-sqlite", "redis-sqlite-slots"], indirect=True)
@pytest.mark.parametrize(("point", "outcome"), [("before release", "lost"), ("after release", "released")])
def test_a_job_runs_again_if_its_worker_is_killed_while_returning_it(world: World, point: str, outcome: str) -> None:
    long: Any = {"LEASE_SECONDS": "20", "JOB_TIME_LIMIT_SECONDS": "19"}
    first, job = world.busy_worker(HOLDFAST_TEST_DIE=point, **long)
    first.process.send_signal(signal.SIGTERM)
    wait_until(lambda: world.died(point), seconds=60, what="the job to be returned")
    world.release_held_job()
    world.stack.worker(**long)
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, [outcome, "succeeded"])


@WITHOUT_SLOTS
def test_the_next_sweep_rings_if_one_is_killed_before_it_rings(world: World) -> None:
    point = "after the sweep, before it rings"
    job = world.record("plain")
    world.wipe_broker()  # so that the sweep has something to ring for
    first = world.stack.worker(HOLDFAST_TEST_DIE=point)
    assert first.process.wait(60) == -signal.SIGKILL
    world.stack.worker()
    world.settle()
    assert (world.died(point), world.effects(job)) == (True, 1)


@WITHOUT_SLOTS
def test_a_job_that_waits_for_an_ordering_key_is_rung_if_the_holder_dies_before_it_rings(world: World) -> None:
    point = "after finish"
    long: Any = {"LEASE_SECONDS": "60", "JOB_TIME_LIMIT_SECONDS": "50"}
    _, first = world.busy_worker("cus_1", HOLDFAST_TEST_DIE=point, processes=2, **long)
    second = world.record("plain", "evt_2", "cus_1")
    wait_until(
        lambda: world.store.client.exists("{holdfast}:waiting:cus_1") == 1, seconds=60, what="the second job to wait"
    )
    time.sleep(SLICE_SECONDS)  # after that the worker takes no next job, which would be the second
    world.release_held_job()
    world.settle()
    assert world.died(point)
    assert (world.effects(first), world.effects(second), world.outcomes(second)) == (1, 1, ["succeeded"])


@pytest.mark.parametrize("world", ["redis-sqlite", "redis-postgres"], indirect=True)
def test_a_worker_killed_with_the_lease_of_the_next_job_loses_nothing(world: World) -> None:
    point = "after the next lease, before its handler"
    jobs = [world.record("plain", f"evt_{n}") for n in range(3)]
    world.stack.worker(HOLDFAST_TEST_DIE=point)
    world.settle()
    assert (world.died(point), [world.effects(job) for job in jobs]) == (True, [1] * 3)
    assert sorted(map(world.outcomes, jobs)) == [["lost", "succeeded"], ["succeeded"], ["succeeded"]]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before the replay", "after the replay, before the doorbell"])
def test_a_receiver_killed_around_a_replay_has_replayed_the_job_or_not(world: World, point: str) -> None:
    job = world.record("failing")
    first = world.stack.worker(MAX_ATTEMPTS="1")
    wait_until(lambda: world.state(job) == "dead", seconds=60, what="a dead letter")
    first.kill()
    world.stack.receiver(module="tests.support.receiver_app", HOLDFAST_TEST_DIE=point)
    with pytest.raises(requests.ConnectionError):
        requests.post(world.stack.url(f"/api/v1/jobs/{job}/replay"), headers=BEARER, timeout=10)
    assert world.died(point)
    assert world.state(job) == ("dead" if point.startswith("before") else "pending")
    world.stack.worker()
    world.settle()
    assert world.effects(job) == (0 if point.startswith("before") else 1)


@pytest.mark.slow
@pytest.mark.parametrize("world", PAIRS, indirect=True)
@pytest.mark.parametrize(
    "point",
    ["before the record", "after the record, before the doorbell and the 200", "after the doorbell, before the 200"],
)
def test_an_event_is_recorded_once_if_the_receiver_is_killed_around_the_record(world: World, point: str) -> None:
    world.stack.receiver(module="tests.support.receiver_app", HOLDFAST_TEST_DIE=point)
    body, headers = signed_by_stripe(stripe_event("evt_1", "test.plain"))
    statuses = []

    def acknowledged() -> bool:
        try:
            answer = requests.post(world.stack.url("/stripe-webhook"), data=body, headers=headers, timeout=20)
            statuses.append(answer.status_code)
        except requests.ConnectionError:
            statuses.append(0)
        return statuses[-1] == 200

    wait_until(acknowledged, seconds=120, what="the event to be acknowledged")
    assert statuses[0] == 0
    world.stack.worker()
    stats = world.settle()
    job = "stripe:evt_1:tests.support.handlers.plain"
    assert (world.effects(job), world.effects("stripe:evt_1:follow")) == (1, 1)
    assert stats | {"accepted": 1, "duplicates": 0 if point == "before the record" else 1} == stats


@pytest.mark.parametrize("world", PAIRS, indirect=True)
def test_an_outgoing_call_repeated_after_a_crash_has_the_same_idempotency_key(world: World) -> None:
    with Peer(lambda _: Answer()) as peer:
        world.stack.environment["HOLDFAST_TEST_PEER"] = peer.url
        job = world.record("calling")
        world.stack.worker(HOLDFAST_TEST_DIE="after the outgoing call, before the commit")
        world.settle()
    assert [request.headers["Idempotency-Key"] for request in peer.requests] == [job, job]
    assert world.effects(job) == 1


def test_an_event_recorded_before_the_broker_loses_its_queues_is_processed(world: World) -> None:
    jobs = [world.record("plain", f"evt_{n}") for n in range(20)]
    world.wipe_broker()
    world.stack.worker()
    world.settle()
    assert [world.effects(job) for job in jobs] == [1] * 20


def test_no_job_is_lost_if_the_broker_loses_its_queues_under_running_workers(world: World) -> None:
    _, held = world.busy_worker()
    jobs = [world.record("plain", f"evt_{n}") for n in range(10)]
    world.wipe_broker()
    world.release_held_job()
    world.settle()
    assert [world.effects(job) for job in [held, *jobs]] == [1] * 11


def test_sigterm_returns_a_job_that_does_not_finish_in_time(world: World) -> None:
    first, job = world.busy_worker(LEASE_SECONDS="600", JOB_TIME_LIMIT_SECONDS="500")
    first.process.send_signal(signal.SIGTERM)
    wait_until(lambda: world.state(job) == "pending", seconds=120, what="the job to be returned")
    assert first.process.wait(GRACE_SECONDS) == 0
    assert (world.state(job), world.outcomes(job)) == ("pending", ["released"])
    world.stack.worker(LEASE_SECONDS="600", JOB_TIME_LIMIT_SECONDS="500")
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["released", "succeeded"])


def test_sigterm_lets_a_job_finish_in_time(world: World) -> None:
    worker, job = world.busy_worker(LEASE_SECONDS="60", JOB_TIME_LIMIT_SECONDS="50")
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(2)
    world.release_held_job()
    assert worker.process.wait(GRACE_SECONDS) == 0
    assert (world.effects(job), world.outcomes(job)) == (1, ["succeeded"])


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_sigterm_during_a_step_of_the_event_loop_ends_the_worker_cleanly(world: World) -> None:
    worker = world.stack.worker(HOLDFAST_TEST_STOP_IN_STEP="yes")
    job = world.record("plain")
    assert worker.process.wait(GRACE_SECONDS) == 0
    assert not worker.has_logged("Unrecoverable error")
    world.stack.worker()
    world.settle()
    assert world.effects(job) == 1


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_sigterm_ends_a_worker_whose_broker_is_down(world: World) -> None:
    worker = world.stack.worker()
    world.valkey.kill()
    wait_until(lambda: worker.has_logged("Connection to broker lost"), seconds=60, what="the worker to notice")
    assert worker.stop() == 0
    world.valkey.start()


def test_a_killed_redis_restarts_from_its_file_with_every_job(world: World) -> None:
    worker = world.stack.worker(processes=2)
    jobs = [world.record("plain", f"evt_{n}") for n in range(50)]
    world.valkey.kill()
    time.sleep(1)
    world.valkey.start()
    stats = world.settle()
    assert [world.effects(job) for job in jobs] == [1] * 50
    assert stats | {"succeeded": 100, "dead": 0} == stats
    assert worker.alive()


def test_a_handler_that_fails_twice_succeeds_the_third_time_and_its_errors_are_recorded(world: World) -> None:
    job = world.record("failing")
    worker = world.stack.worker()
    world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["failed", "failed", "succeeded"])
    found = queries.find_job(world.store, job)
    assert found is not None
    assert found["attempts"][0]["reason"] == "the peer is down"
    assert worker.has_logged("the peer is down")


def test_a_permanent_error_makes_the_job_dead_at_once_and_others_continue(world: World) -> None:
    hopeless, plain = world.record("hopeless", "evt_1"), world.record("plain", "evt_2")
    world.stack.worker()
    world.settle()
    assert (world.state(hopeless), world.effects(plain)) == ("dead", 1)


@WITHOUT_SLOTS
def test_a_job_that_always_kills_its_worker_becomes_dead_and_others_continue(world: World) -> None:
    deadly, plain = world.record("deadly", "evt_1"), world.record("plain", "evt_2")
    world.stack.worker(MAX_ATTEMPTS="2")
    world.settle()
    assert (world.state(deadly), world.outcomes(deadly), world.effects(plain)) == ("dead", ["lost", "lost"], 1)


def test_personal_data_in_a_foreign_error_is_neither_stored_nor_logged(world: World) -> None:
    job = world.record("leaking")
    worker = world.stack.worker(MAX_ATTEMPTS="1")
    world.settle()
    found = queries.find_job(world.store, job)
    assert found is not None
    assert found["reason"].startswith("ValueError at tests/support/handlers.py:")
    assert not worker.has_logged("ada@example.com")
