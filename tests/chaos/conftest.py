"""The system under test: the record, a broker, a database, and real worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text

from dev.stack.rabbitmq import BROKERS, RabbitMQ
from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.event import Event
from inbox.job import NewJob
from inbox.rules import Rules
from inbox.store import Store
from tasks.broker import task_message
from tests.conftest import fresh_database
from tests.support.signed_deliveries import signed_by_stripe, stripe_event
from tests.support.stack import Process, Stack


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


@dataclass
class World:
    """What a crash test acts on, and queries for the results."""

    stack: Stack
    valkey: Valkey
    store: Store
    database: str
    rabbitmq: RabbitMQ | None

    def record(self, kind: str, event_id: str = "evt_1", ordering_key: str = "") -> str:
        """Record an event for the handler `kind`, as the receiver does; returns its job's id."""
        job = NewJob(
            f"stripe:{event_id}:{kind}", f"tests.support.handlers.{kind}", "payments", ordering_key=ordering_key
        )
        self.store.record(Event("stripe", event_id, f"test.{kind}", b"{}"), [job])
        return job.id

    def busy_worker(self, ordering_key: str = "", **settings: Any) -> tuple[Process, str]:
        """A worker in the middle of a job, and the job's id; `release_held_job` lets the job continue."""
        (self.stack.folder / "hold").touch()
        worker = self.stack.worker(**settings)
        job = self.record("slow", "evt_held", ordering_key)
        self.wait_for_held_job()
        return worker, job

    def died(self, point: str) -> bool:
        return (self.stack.folder / f"died-{point}").exists()

    def release_held_job(self) -> None:
        (self.stack.folder / "hold").unlink()

    def wait_for_held_job(self) -> None:
        """Wait until the handler `slow` waits."""
        wait_until((self.stack.folder / "held").exists, seconds=120, what="the job to be held")

    def wipe_broker(self) -> None:
        """Delete the queues with all doorbells."""
        self.store.client.delete("payments")
        if self.rabbitmq:
            self.rabbitmq.delete_queue("payments")

    def effects(self, job_id: str) -> int:
        """The number of effects of a job in the database."""
        engine = create_engine(self.database)
        with engine.connect() as connection:
            found = connection.execute(
                text("SELECT count(*) FROM notifications WHERE id LIKE :id"), {"id": f"{job_id}#%"}
            ).scalar_one()
        engine.dispose()
        return int(found)

    def settle(self, *, unfinished: int = 0) -> dict[str, int]:
        """Wait until at most `unfinished` jobs are unfinished; returns the counts."""
        try:
            wait_until(
                lambda: queries.stats(self.store)["unfinished"] <= unfinished, seconds=120, what="the jobs to be done"
            )
        except TimeoutError as error:
            error.add_note(f"{queries.stats(self.store)}\n{self.stack.log_tails()}")
            raise
        return queries.stats(self.store)

    def state(self, job_id: str) -> str:
        found = queries.find_job(self.store, job_id)
        return str(found and found["state"])

    def finished(self, job_id: str) -> int:
        """When a job ended; milliseconds since 1970."""
        found = queries.find_job(self.store, job_id)
        return int(found["finished"]) if found else 0

    def outcomes(self, job_id: str) -> list[str]:
        """The outcome of each attempt of a job."""
        found = queries.find_job(self.store, job_id)
        return [attempt.get("outcome", "open") for attempt in found["attempts"]] if found else []


EACH_ONCE = ["redis-sqlite", *(["rabbitmq-postgres"] if "rabbitmq" in BROKERS else [])]
MIXED = ["redis-postgres", *(["rabbitmq-sqlite"] if "rabbitmq" in BROKERS else [])]
SLOTS = [f"{pair}-slots" for pair in EACH_ONCE]  # with many jobs at once in each process
PAIRS = [*EACH_ONCE, SLOTS[0], *(pytest.param(pair, marks=pytest.mark.matrix) for pair in (*SLOTS[1:], *MIXED))]

# For what is different with many jobs at once in a process: see test_slots.py.
WITHOUT_SLOTS = pytest.mark.parametrize("world", EACH_ONCE, indirect=True)


@pytest.fixture(params=[*EACH_ONCE, *(pytest.param(pair, marks=pytest.mark.matrix) for pair in SLOTS)])
def world(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[World]:
    broker, kind, *slots = request.param.split("-")
    database = fresh_database(request, kind)
    environment = {"REDIS_URL": valkey.url, "DATABASE_URL": database} | ({"WORKER_SLOTS": "8"} if slots else {})
    server: RabbitMQ | None = None
    rules = Rules(ring_again_seconds=2)
    store = Store(connect(valkey.url, timeout_seconds=5), rules, message=task_message)
    if broker == "rabbitmq":
        server = request.getfixturevalue("rabbitmq")
        server.delete_queue("payments")
        environment["BROKER_URL"] = server.url
        store = Store(connect(valkey.url, timeout_seconds=5), rules)  # without doorbells: the sweep must find every job
    stack = Stack(tmp_path, environment)
    yield World(stack, valkey, store, database, server)
    stack.end()


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    """The real receiver and workers, on Redis and SQLite unless the test sets something else."""
    made = Stack(tmp_path, {"REDIS_URL": valkey.url, "DATABASE_URL": fresh_database(request, "sqlite")})
    yield made
    made.end()


def deliver(stack: Stack, event_id: str, **session: Any) -> int:
    """Send a checkout, unpaid unless `session` sets it otherwise; returns the HTTP status."""
    return deliver_to(stack.url("/stripe-webhook"), event_id, **session)


def deliver_to(url: str, event_id: str, **session: Any) -> int:
    session = {"id": f"cs_{event_id}", "payment_status": "unpaid", **session}
    body, headers = signed_by_stripe(stripe_event(event_id, "checkout.session.completed", **session))
    return requests.post(url, data=body, headers=headers, timeout=20).status_code


def pytest_report_header() -> str:
    return f"brokers: {', '.join(BROKERS)}"
