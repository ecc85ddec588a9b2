"""Every part restarts in turn while paid checkouts arrive, as in an upgrade: nothing is lost or done twice.

Every delivery gets 200 while the store is up.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dev.harness import mails, write_log
from dev.harness.mails import overruns
from dev.harness.timing import Outage
from dev.simulators.mail import MailService
from dev.stack.postgres import Postgres
from dev.stack.rabbitmq import BROKERS
from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.store import Store
from tests.chaos.test_patience import Senders
from tests.support.databases import fresh_postgres
from tests.support.stack import Stack

QUEUES = ("payments", "fulfilment", "documents", "downloads", "notifications", "handoffs")
# An accepted connection that the old receiver never read; a proxy repeats the request (tests/chaos/test_proxy.py).
UNREAD = "ConnectionError"


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server of its own, which the test may kill; committed data survives."""
    with Postgres(forgetful=False) as server:
        yield server


@pytest.fixture
def mail_service() -> Iterator[MailService]:
    with MailService() as server:
        yield server


@pytest.fixture
def everything(
    own_postgres: Postgres, valkey: Valkey, tmp_path: Path, request: pytest.FixtureRequest, mail_service: MailService
) -> Iterator[Stack]:
    settings = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": fresh_postgres(own_postgres),
        "CUSTOMER_NOTIFY_URLS": mail_service.notify_url,
    }
    write_log.create_triggers(settings["DATABASE_URL"])
    if "rabbitmq" in BROKERS:
        settings["BROKER_URL"] = request.getfixturevalue("rabbitmq").url
    stack = Stack(tmp_path, settings)
    yield stack
    stack.end()


@pytest.mark.slow
@pytest.mark.timeout(600)  # each stop of a worker may take the whole grace period
def test_no_order_is_lost_or_doubled_while_every_part_restarts_under_load(
    everything: Stack, own_postgres: Postgres, valkey: Valkey, mail_service: MailService, request: pytest.FixtureRequest
) -> None:
    real_store = Store(connect(valkey.url, timeout_seconds=5))
    receiver = everything.receiver()
    workers = {queue: everything.worker(queues=queue, app="workers.app") for queue in QUEUES}

    def renew_receiver() -> None:
        receiver.process.send_signal(signal.SIGHUP)
        wait_until(lambda: receiver.has_logged("Finished server process"), seconds=60, what="the old receiver to end")

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

    spans: dict[Callable[[], None], tuple[float, float]] = {}
    with Senders(everything.url("/stripe-webhook"), count=2, pause_seconds=0.3) as senders:
        time.sleep(1)
        for renew in (renew_receiver, *map(renew_worker, QUEUES), renew_broker, renew_store, renew_database):
            began = time.monotonic()
            renew()
            spans[renew] = began, time.monotonic() + 1
            time.sleep(1)
    _drain(everything, real_store)

    assert senders.outcomes_outside(*spans[renew_store]) <= {"200", UNREAD}
    assert senders.outcomes[UNREAD] <= 1
    assert senders.outcomes_during(*spans[renew_store]) <= {"200", "503"}
    stats, done = queries.stats(real_store), set(senders.count_ack)
    assert stats | {"dead": 0, "succeeded": stats["succeeded"]} == stats
    assert stats["accepted"] >= len(done) > 100  # also an event whose 200 was lost
    assert all(queries.find_event(real_store, "stripe", name) for name in done)
    assert all(part.alive() for part in (receiver, *workers.values()))
    orders, twice = _orders(own_postgres)
    assert len(orders) == stats["accepted"]
    assert orders >= {f"cs_{name}" for name in done}
    assert twice == {}
    hard = {"broker": renew_broker, "store": renew_store, "database": renew_database}  # a worker has to give up a job
    parted = [_done(what, *spans[renew]) for what, renew in hard.items()]
    limits = [limit for part in everything.parts for limit in overruns(part.log.read_text(errors="replace"))]
    sent = mails.count(mail_service.mails, parted + limits).found
    assert all(set(times.values()) == {1} for times in sent.values())
    assert {address.partition("@")[0] for times in sent.values() for address in times} >= done


def _drain(stack: Stack, store: Store) -> None:
    try:
        wait_until(lambda: queries.stats(store)["unfinished"] == 0, seconds=180, what="every job to be done")
    except TimeoutError as error:
        error.add_note(f"{queries.stats(store)}\n{stack.log_tails()}")
        raise


def _orders(server: Postgres) -> tuple[set[str], dict[str, Counter[str]]]:
    """The customers whose orders are fulfilled, and rows that were written twice."""
    engine = create_engine(server.url("test"))
    with engine.connect() as connection:
        orders = set(connection.scalars(text("SELECT session_id FROM orders WHERE state = 'fulfilled'")))
        return orders, write_log.repeated_writes(connection)


def _done(what: str, began: float, over: float) -> Outage:
    """The restarted parts, with times by the mail service's clock."""
    epoch = time.time() - time.monotonic()
    return Outage(f"renew the {what}", what, (began + epoch) * 1000, (over + epoch) * 1000)
