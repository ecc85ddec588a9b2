"""Failures of the store: a delivery gets 200 only if its event is recorded."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from dev.stack.postgres import Postgres
from dev.stack.rabbitmq import RabbitMQ
from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.errors import StoreUnavailable
from inbox.event import Event
from inbox.store import Store
from tests.chaos.conftest import World, deliver
from tests.support.lossy_proxy import LossyProxy
from tests.support.stack import Stack


@pytest.mark.parametrize(("lost", "status"), [(1, 200), (2, 503)])
def test_a_lost_reply_of_a_script_is_requested_again_or_gives_no_200(
    stack: Stack, valkey: Valkey, real_store: Store, lost: int, status: int
) -> None:
    line = LossyProxy(("127.0.0.1", valkey.port), about=b"evt_1")
    stack.environment["REDIS_URL"] = line.url
    stack.environment["BROKER_URL"] = valkey.url
    stack.receiver()
    assert deliver(stack, "evt_0") == 200  # connects and loads the script
    line.lose = lost
    assert deliver(stack, "evt_1") == status
    assert deliver(stack, "evt_1") == 200  # recorded by the repeated command, or a duplicate
    recorded = queries.find_event(real_store, "stripe", "evt_1")
    assert recorded is not None
    assert (len(recorded["jobs"]), queries.stats(real_store)["accepted"]) == (1, 2)


def test_a_read_only_replica_records_nothing_until_it_is_promoted(stack: Stack, valkey: Valkey, tmp_path: Path) -> None:
    replica = Valkey(tmp_path / "replica").start()
    client = connect(replica.url, timeout_seconds=5)
    try:
        client.replicaof("127.0.0.1", str(valkey.port))
        stack.environment["REDIS_URL"] = replica.url
        stack.receiver()
        assert deliver(stack, "evt_1") == 503
        assert client.keys("*evt_1*") == []
        client.replicaof("NO", "ONE")
        wait_until(lambda: deliver(stack, "evt_1") == 200, seconds=10, what="the promoted replica to take events")
    finally:
        replica.stop()


def test_a_store_without_its_file_is_named_in_the_log_at_the_start_of_the_receiver(
    stack: Stack, tmp_path: Path
) -> None:
    server = Valkey(tmp_path / "no-file", appendonly="no").start()
    try:
        receiver = stack.receiver(REDIS_URL=server.url)
        risk = "the store may lose acknowledged events: for DURABILITY=always, appendonly must be yes (it is no)"
        lines = [json.loads(line) for line in receiver.log.read_text().splitlines() if risk in line]
        assert [line["level"] for line in lines] == ["error"]
        receiver.stop()
        chosen = stack.receiver(REDIS_URL=server.url, DURABILITY="none")
        assert chosen.log.read_text().count(risk) == len(lines)  # both have the same log
    finally:
        server.stop()


def test_a_file_truncated_by_a_crash_has_every_acknowledged_event(stack: Stack, valkey: Valkey) -> None:
    stack.receiver()
    names = [f"evt_{n}" for n in range(50)]
    assert {deliver(stack, name) for name in names} == {200}
    valkey.kill()
    (newest,) = (valkey.folder / "appendonlydir").glob("*.incr.aof")
    with newest.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$5\r\nhalf")  # a partly written command
    valkey.start()
    client = connect(valkey.url, timeout_seconds=5)
    assert [name for name in names if not client.exists(f"{{holdfast}}:event:stripe:{name}")] == []
    wait_until(lambda: deliver(stack, "evt_50") == 200, seconds=10, what="the receiver to go on")


def test_a_stalled_store_gives_503_and_the_resent_event_is_recorded_once(
    stack: Stack, valkey: Valkey, real_store: Store
) -> None:
    """CLIENT PAUSE: the server accepts commands but does not reply for a while, as if it waited for a slow disk."""
    stack.receiver()
    real_store.client.client_pause(3000)
    began = time.monotonic()
    assert (deliver(stack, "evt_1"), time.monotonic() - began < 2) == (503, True)
    time.sleep(3)
    assert deliver(stack, "evt_1") == 200
    assert queries.stats(real_store)["accepted"] == 1


ONE_ATTEMPT = {"MAX_ATTEMPTS": "1", "LEASE_SECONDS": "60", "JOB_TIME_LIMIT_SECONDS": "50"}


@pytest.mark.slow
@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_store_that_stalls_after_the_commit_makes_no_dead_letter(world: World) -> None:
    _, job = world.busy_worker(**ONE_ATTEMPT)
    world.store.client.client_pause(13_000)  # longer than a worker's two requests of 5 s each
    world.release_held_job()
    time.sleep(13)
    stats = world.settle()
    assert (world.effects(job), world.outcomes(job)) == (1, ["succeeded"])
    assert stats | {"dead": 0, "succeeded": 1} == stats


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_database_that_is_down_makes_no_dead_letter(world: World) -> None:
    with Postgres(forgetful=False) as server:
        world.database = server.url("test")
        server.kill()
        world.stack.environment |= ONE_ATTEMPT
        world.stack.worker(DATABASE_URL=world.database)
        job = world.record("plain")
        wait_until(lambda: world.state(job) == "scheduled", seconds=60, what="the job to be put off")
        assert world.outcomes(job) == []
        server.start()
        stats = world.settle()
        assert (world.effects(job), world.outcomes(job), stats["dead"]) == (1, ["succeeded"], 0)


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_nearly_full_store_rejects_events_and_lets_workers_finish_jobs(world: World) -> None:
    jobs = [world.record("plain", f"evt_{n}") for n in range(20)]
    for number in range(50):  # in one piece, its query buffer would count as used memory for another 50 MB for 0.1 s
        world.store.client.set(f"filler {number}", b"x" * 1_000_000)
    used, _ = world.store.memory()
    world.store.client.config_set("maxmemory", int(used * 1.06))
    try:
        with pytest.raises(StoreUnavailable, match="nearly full"):
            Store(connect(world.valkey.url)).record(Event("stripe", "evt_more", "x", b"{}"), [])
        world.stack.worker()
        world.settle()
    finally:
        world.store.client.config_set("maxmemory", "0")
    assert [world.effects(job) for job in jobs] == [1] * 20


AWAY_SECONDS = 180 if os.environ.get("HOLDFAST_PATIENT") else 20  # three minutes are too long for every run


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_recovers_after_a_long_time_without_its_broker(world: World) -> None:
    worker = world.stack.worker()
    broker: Valkey | RabbitMQ = world.rabbitmq or world.valkey
    broker.kill()
    time.sleep(AWAY_SECONDS)
    broker.start()
    job = world.record("plain")
    world.settle()
    assert (world.effects(job), worker.alive()) == (1, True)


@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_worker_waits_for_a_broker_that_starts_late(world: World) -> None:
    """The broker is a different server than the record, and starts late."""
    late = Valkey(world.stack.folder / "late")
    job = world.record("plain")
    worker = world.stack.worker(BROKER_URL=late.url, ready=False)
    wait_until(lambda: worker.has_logged("Cannot connect to redis"), seconds=30, what="the worker to miss its broker")
    late.start()
    try:
        world.settle()
        assert world.effects(job) == 1
    finally:
        worker.kill()
        late.stop()
