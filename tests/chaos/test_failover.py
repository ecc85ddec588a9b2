"""A replica takes over from a dead or frozen master: with REPLICAS_ACK, each acknowledged event is processed once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from sqlalchemy import create_engine, text

from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.store import Store
from tests.conftest import fresh_database
from tests.support.sentinel import Sentinel, sentinel_url
from tests.support.signed_deliveries import signed_by_stripe, stripe_event
from tests.support.stack import Stack


@dataclass
class Servers:
    """A master, its replica, their Sentinels and any replacements; all end with the test."""

    folder: Path
    exits: ExitStack
    master: Valkey
    replica: Valkey
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        return sentinel_url(self.sentinels)

    def replica_of(self, master: Valkey, name: str) -> Valkey:
        return started(self.exits, Valkey(self.folder / name, replicaof=f"127.0.0.1 {master.port}"))

    def wait_for_the_replica(self) -> None:
        """Wait until the Sentinels report the replica as the master."""
        wait_until(lambda: self._master_port() == self.replica.port, seconds=60, what="the replica to take over")

    def _master_port(self) -> int:
        return int(client_of(self.sentinels[-1]).sentinel_master(Sentinel.SERVICE)["port"])


def client_of(sentinel: Sentinel) -> Any:
    return redis.Redis(port=sentinel.port, decode_responses=True)


def started(exits: ExitStack, server: Valkey) -> Valkey:
    exits.callback(server.kill)
    return server.start()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with ExitStack() as exits:
        master = started(exits, Valkey(tmp_path / "master"))
        replica = started(exits, Valkey(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}"))
        sentinels = [Sentinel(tmp_path / f"sentinel-{n}", master, quorum=2) for n in range(3)]
        for sentinel in sentinels:
            started(exits, sentinel)
        made = Servers(tmp_path, exits, master, replica, sentinels)
        store = Store(connect(made.url), replicas_ack=1)
        wait_until(lambda: store.replicas() == 1, seconds=60, what="the replica to follow")
        wait_until(lambda: all(map(sees_all, sentinels)), seconds=60, what="the Sentinels to know each other")
        yield made


def sees_all(sentinel: Sentinel, replicas: int = 1) -> bool:
    """True if the Sentinel knows the replicas and the two other Sentinels."""
    found = client_of(sentinel).sentinel_master(Sentinel.SERVICE)
    return (found["num-slaves"], found["num-other-sentinels"]) == (replicas, 2)


@pytest.fixture
def stack(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Stack]:
    database = fresh_database(request, "sqlite")
    made = Stack(tmp_path, {"REDIS_URL": servers.url, "DATABASE_URL": database, "REPLICAS_ACK": "1"})
    yield made
    made.end()


def deliver(stack: Stack, name: str) -> int:
    body, headers = signed_by_stripe(stripe_event(name, "test.plain"))
    return requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=10).status_code


class Senders:
    """Senders that repeat each event until it is answered with 200; they record those and the slowest response."""

    def __init__(self, stack: Stack) -> None:
        self.count_ack: list[str] = []
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self._stack, self._stopped = stack, threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(4)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        goal = len(self.count_ack) + count
        wait_until(lambda: len(self.count_ack) >= goal, seconds=120, what="senders to hear 200 again")

    def _send(self, sender: int) -> None:
        number = 0
        while not self._stopped.is_set():
            name = f"evt_{sender}_{number}"
            began = time.monotonic()
            status = deliver(self._stack, name)
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[status] += 1
            if status == 200:
                self.count_ack.append(name)
                number += 1
            time.sleep(0.02)


def effects(stack: Stack) -> Counter[str]:
    """The number of effects of each job, by job id."""
    engine = create_engine(stack.environment["DATABASE_URL"])
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id FROM notifications")).scalars().all()
    engine.dispose()
    return Counter(row.partition("#")[0] for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("death", ["kill", "freeze"])
def test_no_acknowledged_event_is_lost_or_run_twice_in_a_failover_under_load(
    stack: Stack, servers: Servers, death: str
) -> None:
    """The master's machine fails, with a Sentinel on it; later it returns and still considers itself the master."""
    servers.replica_of(servers.master, "second")  # the new master needs a replica, too
    # A replica that the Sentinels do not know yet (they ask every 10 s) would not be moved to the new master.
    wait_until(
        lambda: all(sees_all(one, 2) for one in servers.sentinels), seconds=60, what="the Sentinels to know both"
    )
    stack.receiver("tests.support.receiver_app")
    worker = stack.worker()
    gone = (servers.master, servers.sentinels[0])
    with Senders(stack) as senders:
        senders.wait_for_more(20)
        for server in gone:
            (server.kill if death == "kill" else server.freeze)()
        senders.wait_for_more(20)
        for server in gone:
            server.resume()
        senders.wait_for_more(20)
    store = Store(connect(servers.url, timeout_seconds=5))
    wait_until(lambda: queries.stats(store)["unfinished"] == 0, seconds=120, what="every job to be done")
    done = effects(stack)
    lost = [name for name in senders.count_ack if not done[f"stripe:{name}:tests.support.handlers.plain"]]
    assert (lost, [job for job, times in done.items() if times > 1]) == ([], [])
    assert (worker.alive(), set(senders.statuses)) == (True, {200, 503})
    assert senders.slowest < 5  # 2 s, and a margin for a busy machine


@pytest.mark.parametrize(("replicas_ack", "status"), [("0", 200), ("1", 503)])
def test_an_event_that_no_replica_has_is_lost_with_the_master_but_not_acknowledged_with_replicas_ack(
    stack: Stack, servers: Servers, replicas_ack: str, status: int
) -> None:
    stack.receiver(REPLICAS_ACK=replicas_ack)
    assert deliver(stack, "evt_before") == 200
    servers.replica.freeze()
    connect(servers.master.url).client_kill_filter(_type="replica")  # no data waits in its socket
    assert [deliver(stack, "evt_1"), deliver(stack, "evt_1")] == [status] * 2  # a duplicate makes the same promise
    servers.master.kill()
    servers.replica.resume()
    servers.wait_for_the_replica()
    store = Store(connect(servers.url))
    assert queries.find_event(store, "stripe", "evt_before") is not None
    assert queries.find_event(store, "stripe", "evt_1") is None


def test_the_receiver_is_not_ready_while_too_few_replicas_confirm(stack: Stack, servers: Servers) -> None:
    stack.receiver()
    servers.replica.freeze()
    response = requests.get(stack.url("/readyz?only=store"), timeout=5)
    assert (response.status_code, response.json()) == (
        503,
        {
            "ready": False,
            "checks": {"store": "only 0 of 1 replicas confirm writes: sources receive 503"},
            "loss_window": "nothing",
        },
    )
    metrics = requests.get(stack.url("/metrics"), timeout=5).text
    assert {"holdfast_replicas 0.0", "holdfast_replicas_ack 1.0"} <= set(metrics.splitlines())
    servers.replica.resume()
    wait_until(lambda: requests.get(stack.url("/readyz?only=store"), timeout=5).ok, seconds=10, what="it to be ready")


@pytest.mark.parametrize("at_least", ["0", "1"])
def test_an_old_master_that_still_runs_is_not_used(stack: Stack, servers: Servers, at_least: str) -> None:
    """The old master still runs and the receiver is connected to it, but the Sentinels have chosen another one."""
    stack.receiver()
    assert deliver(stack, "evt_0") == 200
    connect(servers.master.url).config_set("min-replicas-to-write", at_least)
    connect(servers.replica.url).replicaof("NO", "ONE")
    assert deliver(stack, "evt_1") == 503
    servers.replica_of(servers.replica, "second")
    for sentinel in servers.sentinels:  # so that they do not reconfigure the old master
        client_of(sentinel).sentinel_remove(Sentinel.SERVICE)
        client_of(sentinel).sentinel_monitor(Sentinel.SERVICE, "127.0.0.1", servers.replica.port, 2)
    wait_until(lambda: deliver(stack, "evt_1") == 200, seconds=10, what="the receiver to find the new master")
    assert queries.find_event(Store(connect(servers.replica.url)), "stripe", "evt_1") is not None


def test_a_sentinel_that_was_frozen_during_the_failover_is_not_believed(servers: Servers) -> None:
    """At any position in the list: it answers at once, with the old master's address."""
    servers.master.kill()
    servers.wait_for_the_replica()
    stale = servers.sentinels[0]
    client_of(stale).sentinel_remove(Sentinel.SERVICE)
    client_of(stale).sentinel_monitor(Sentinel.SERVICE, "127.0.0.1", servers.master.port, 2)
    for sentinels in permutations(servers.sentinels):
        connect(sentinel_url(list(sentinels))).ping()  # the old master would reject it
    assert client_of(stale).sentinel_get_master_addr_by_name(Sentinel.SERVICE)[1] == servers.master.port


def test_servers_and_sentinels_may_require_different_passwords(stack: Stack, servers: Servers) -> None:
    for server in (servers.master, servers.replica):
        connect(server.url).config_set("masterauth", "p@ss")
    for sentinel in servers.sentinels:
        client_of(sentinel).sentinel_set(Sentinel.SERVICE, "auth-pass", "p@ss")
        client_of(sentinel).acl_setuser("default", enabled=True, passwords=["+s/ntinel"])
    for server in (servers.master, servers.replica):
        connect(server.url).config_set("requirepass", "p@ss")
    url = servers.url.replace("://", "://:p%40ss@") + "&sentinel_password=s%2Fntinel"
    stack.receiver(REDIS_URL=url)
    assert deliver(stack, "evt_1") == 200
    checks = requests.get(stack.url("/readyz?only=store,broker"), timeout=5).json()["checks"]
    assert checks == {"store": "ok", "broker": "ok"}
