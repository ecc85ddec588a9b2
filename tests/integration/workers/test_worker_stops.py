"""A worker with a backlog is stopped, or gets an error, when it has leased the next job and not begun it."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest
from celery import Celery
from sqlalchemy.orm import Session

from inbox import queries
from inbox.event import Event
from inbox.job import Doorbell, Lease, NewJob
from inbox.store import Store
from settings import load
from tasks import broker
from tasks.db.engine import make_engine, make_sessions
from tasks.handler import Attempt, FollowUp, Handler
from tests.conftest import fresh_database
from workers import backlog
from workers.flower_events import FlowerEvents
from workers.run import Runner

TASK = "tasks.payments.payment_failed"


def handler(attempt: Attempt, db: Session) -> list[FollowUp]:
    return [FollowUp("after", "tasks.notifications.send", delay_seconds=60)]


@pytest.fixture
def runner(real_store: Store, request: pytest.FixtureRequest) -> Iterator[Runner]:
    """A runner on a store with two jobs, whose doorbells are in the broker's list."""
    store = Store(real_store.client, message=broker.task_message)
    jobs = [NewJob(name, TASK, "payments") for name in ("j1", "j2")]
    store.record(Event("stripe", "evt_1", "invoice.payment_failed", b"{}"), jobs)
    store.client.rpop("payments")
    engine = make_engine(fresh_database(request, "sqlite"))
    yield Runner(store, make_sessions(engine), load({}), lambda _: None, "worker-1")
    engine.dispose()


def work(runner: Runner, handlers: Handlers | dict[str, Handler]) -> None:
    lease = runner.lease("j1", "task-1")
    assert isinstance(lease, Lease)
    backlog.work(runner, handlers, lease, 55, FlowerEvents(Celery(), "worker-1"))


class Handlers(UserDict[str, Handler]):
    """Raises SystemExit when the handler of the job number `stop_at` is looked up."""

    def __init__(self, stop_at: int) -> None:
        super().__init__({TASK: handler})
        self.left = stop_at

    def __getitem__(self, name: str) -> Handler:
        self.left -= 1
        if not self.left:
            raise SystemExit(1)
        return super().__getitem__(name)


def outcomes(runner: Runner, job: str) -> tuple[str, list[str]]:
    found = queries.find_job(runner.store, job)
    assert found is not None
    return found["state"], [attempt.get("outcome", "open") for attempt in found["attempts"]]


@pytest.mark.parametrize(
    ("stop_at", "first", "second"),
    [(1, ("pending", ["released"]), ("pending", [])), (2, ("succeeded", ["succeeded"]), ("pending", ["released"]))],
)
def test_a_worker_stopped_before_a_job_has_begun_returns_it(
    runner: Runner, stop_at: int, first: tuple[str, list[str]], second: tuple[str, list[str]]
) -> None:
    with pytest.raises(SystemExit):
        work(runner, Handlers(stop_at))
    assert (outcomes(runner, "j1"), outcomes(runner, "j2")) == (first, second)


def test_a_worker_stopped_while_it_rings_returns_the_next_job(runner: Runner) -> None:
    rings: list[Callable[[], None]] = [lambda: None, stop]

    def ring(_: Iterable[Doorbell]) -> None:
        rings.pop()()

    with pytest.raises(SystemExit):
        work(replace(runner, ring=ring), {TASK: handler})
    assert outcomes(runner, "j1") == ("succeeded", ["succeeded"])
    assert outcomes(runner, "j2") == ("pending", ["released"])


def stop() -> None:
    raise SystemExit(1)


def test_a_worker_that_cannot_finish_a_job_returns_the_next_one(runner: Runner) -> None:
    runner.store.client.set("{holdfast}:jobs:stripe:evt_1", "no list")
    work(runner, {TASK: handler})
    assert outcomes(runner, "j2") == ("pending", ["released"])
