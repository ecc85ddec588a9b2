"""Every part renewed in turn while events come in, as in an upgrade: nothing is lost and nothing is done twice."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dev.postgres import Postgres
from dev.rabbitmq import BROKERS
from dev.servers import Valkey, wait_until
from inbox import look
from inbox.store import Store
from tests.chaos.test_patience import Senders
from tests.stack import Process, Stack

QUEUES = ("payments", "fulfilment", "documents", "downloads", "notifications", "handoffs")


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """One that may be killed: what it committed, it keeps."""
    with Postgres(forgetful=False) as server:
        yield server


@pytest.fixture
def everything(
    own_postgres: Postgres, valkey: Valkey, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Stack]:
    settings = {"REDIS_URL": valkey.url, "DATABASE_URL": own_postgres.fresh()}
    if "rabbitmq" in BROKERS:
        settings["BROKER_URL"] = request.getfixturevalue("rabbitmq").url
    stack = Stack(tmp_path, settings)
    yield stack
    stack.end()


@pytest.mark.timeout(300)  # each stop of a worker may take all of its grace
def test_every_part_renewed_under_load_loses_and_doubles_nothing(
    everything: Stack, own_postgres: Postgres, valkey: Valkey, real_store: Store, request: pytest.FixtureRequest
) -> None:
    receiver = everything.receiver()
    workers = {queue: everything.worker(queues=queue, app="workers.app") for queue in QUEUES}

    def renew_receiver() -> None:
        receiver.process.send_signal(signal.SIGHUP)
        wait_until(lambda: receiver.said("Stopped old worker"), seconds=60, what="the old receiver to end")

    def renew_worker(queue: str) -> Callable[[], None]:
        def renew() -> None:
            new = everything.worker(queues=queue, app="workers.app")
            workers[queue].stop()
            workers[queue] = new

        return renew

    def renew_broker() -> None:
        if "rabbitmq" in BROKERS:
            server = request.getfixturevalue("rabbitmq")
            server.kill()
            server.start()

    def renew_store() -> None:
        valkey.stop()
        valkey.start()

    def renew_database() -> None:
        own_postgres.kill()
        own_postgres.start()

    kept: list[Process] = []
    with Senders(everything, pause_seconds=0.1) as senders:
        time.sleep(1)
        for renew in (renew_receiver, *map(renew_worker, QUEUES)):
            renew()
        kept = [receiver, *workers.values()]
        for renew in (renew_broker, renew_store, renew_database):
            renew()
            time.sleep(1)
    wait_until(lambda: look.stats(real_store)["owed"] == 0, seconds=120, what="every job to be done")

    stats, done = look.stats(real_store), len(set(senders.acknowledged))
    assert stats | {"dead": 0, "succeeded": stats["accepted"]} == stats
    assert stats["accepted"] >= done > 100  # one whose 200 was lost may be there too
    assert all(look.event(real_store, "stripe", name) for name in senders.acknowledged)
    assert _orders(own_postgres) == stats["accepted"]  # its key is the session: one each, and none missing
    assert all(part.alive() for part in kept)


def _orders(server: Postgres) -> int:
    engine = create_engine(server.url("test"))
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM orders")).scalar_one())
