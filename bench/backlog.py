"""Full queues for workers: jobs in Holdfast's record, or the same messages for a bare Celery worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from bench.contenders import Holdfast
from bench.events import bodies
from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.job import NewJob
from inbox.store import Store
from tasks import broker
from tasks.ingest import build_delivery, identify_stripe_event

BATCH = 100


def new_events(count: int) -> Iterator[NewEvent]:
    return (build_delivery("stripe", identify_stripe_event(body.decode()), body) for body in bodies(count))


def record(store: Store, events: Iterable[NewEvent]) -> None:
    """Record events as the receiver does, many per round trip. Raises StoreUnavailable."""
    remaining = iter(events)
    while batch := list(islice(remaining, BATCH)):
        for outcome in store.record_all(batch):
            if isinstance(outcome, StoreUnavailable):
                raise outcome


def fill_record(ours: Holdfast, count: int) -> None:
    record(Store(ours.client, message=broker.task_message), new_events(count))


def fill_queue(ours: Holdfast, count: int) -> None:
    """Only the Celery messages, without a record."""
    for number in range(count):
        name = f"stripe:evt_{number:025}:payments.payment_failed"
        ours.client.lpush("payments", broker.task_message(NewJob(name, "tasks.payments.payment_failed", "payments")))
