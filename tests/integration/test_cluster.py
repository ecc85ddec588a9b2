"""A Redis Cluster can hold the record, but Celery does not work on it: each part says so at its start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import doctor_checks
from dev.stack.servers import Valkey, free_port, wait_until
from inbox import queries
from inbox.client import connect
from inbox.store import Store
from settings import load
from tests.chaos.conftest import deliver
from tests.conftest import fresh_database
from tests.support.stack import Stack

LINE = "REDIS_URL is a Redis Cluster, on which Celery does not work; it must be a server without cluster mode"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Valkey]:
    """All slots on one node."""
    # By default the port of its bus is 10,000 higher, which may be none.
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    server = Valkey(tmp_path / "cluster", **settings).start()
    node = connect(server.url, timeout_seconds=5)
    node.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
    wait_until(lambda: node.cluster("INFO")["cluster_state"] == "ok", seconds=30, what="the cluster")
    yield server
    server.kill()


@pytest.fixture
def stack(request: pytest.FixtureRequest, cluster: Valkey, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, {"REDIS_URL": cluster.url, "DATABASE_URL": fresh_database(request, "sqlite")})
    yield made
    made.end()


@pytest.mark.parametrize("command", [["web"], ["celery", "-A", "workers.app", "worker"]])
def test_receiver_and_worker_end_with_one_line(stack: Stack, command: list[str]) -> None:
    part = stack.part(*command, name="part")
    assert part.process.wait(100) == 1
    assert part.log.read_text() == f"holdfast: {LINE}\n"


def test_doctor_reports_it(cluster: Valkey) -> None:
    found = {one.check: one for one in doctor_checks.store(load({"REDIS_URL": cluster.url}))}
    assert (found["store"].ok, found["store"].found) == (False, LINE)


def test_with_a_broker_elsewhere_events_are_recorded_and_worked(stack: Stack, cluster: Valkey, valkey: Valkey) -> None:
    stack.environment["BROKER_URL"] = valkey.url
    stack.receiver()
    stack.worker(queues="fulfilment", app="workers.app")
    assert deliver(stack, "evt_1") == 200
    store = Store(connect(cluster.url, timeout_seconds=5))
    wait_until(lambda: queries.stats(store)["succeeded"] == 1, seconds=60, what="the job")
