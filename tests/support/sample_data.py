"""Fills a record and a database with sample data, through the real scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert

from inbox.event import Event, NewEvent
from inbox.job import Lease
from inbox.retry import DeadLetter
from inbox.store import Store
from tasks.db.engine import make_engine
from tasks.db.migrate import migrate
from tasks.models import Base, Document, Invoice, Subscription
from tasks.routes import jobs_for

BATCH = 1000
SPREAD_MS = 20 * 86_400_000
TYPES = ("invoice.paid", "invoice.payment_failed", "customer.subscription.updated", "checkout.session.completed")
ERRORS = ("the invoice has no customer", "Stripe answered 500", "the mail server refused the address")


class Clock:
    """The clock of a Store, in milliseconds since 1970; set by its user."""

    ms = 0

    def __call__(self) -> int:
        return self.ms


def fill(store: Store, clock: Clock, numbers: range, until_ms: int, spread_ms: int = SPREAD_MS) -> None:
    """Record one event per number, evenly over the `spread_ms` before `until_ms`.

    Of 100 events 87 have succeeded (and lost their payload if it has expired), 9 have a type without jobs, 2 are dead
    and 2 are pending. A million events take about four minutes, with `appendfsync no`.
    """
    for first in range(0, len(numbers), BATCH):
        clock.ms = until_ms - spread_ms * (len(numbers) - first) // len(numbers)
        _record(store, numbers[first : first + BATCH])


def _record(store: Store, numbers: range) -> None:
    arrivals = [_arrival(n) for n in numbers]
    store.record_all(arrivals)
    for n, job in enumerate((job for arrival in arrivals for job in arrival.jobs), numbers.start):
        lease = store.lease(job.id, "filler/1", 60, "a-celery-task") if n % 50 != 7 else None
        if isinstance(lease, Lease) and n % 50 == 3:
            store.fail(lease, ERRORS[n // 50 % 3], DeadLetter("permanent"))
        elif isinstance(lease, Lease):
            store.finish(lease)


def _arrival(n: int) -> NewEvent:
    kind, customer = "product.updated" if n % 11 == 5 else TYPES[n % 4], f"cus_{n % 50_000}"
    subject = {"id": f"obj_{n}", "customer": customer, "amount_due": 1900, "customer_email": "ada@example.com"}
    body = json.dumps({"id": f"evt_{n:08}", "type": kind, "created": 1_700_000_000 + n, "data": {"object": subject}})
    event = Event("stripe", f"evt_{n:08}", kind, body.encode())
    return NewEvent(event, jobs_for("stripe", event.id, kind, f"stripe:{customer}"))


def fill_database(url: str, documents: int, debtors: int) -> None:
    """Completed documents, and subscriptions with an unpaid invoice."""
    migrate(url)
    insert_rows(url, Document, [_document(n) for n in range(documents)])
    insert_rows(url, Subscription, [_subscription(n) for n in range(debtors)])
    insert_rows(url, Invoice, [_invoice(n) for n in range(debtors)])


def insert_rows(url: str, model: type[Base], rows: Sequence[Mapping[str, object]]) -> None:
    engine = make_engine(url)
    with engine.begin() as db:
        db.execute(insert(model), [dict(row) for row in rows])
    engine.dispose()


def _document(n: int) -> dict[str, object]:
    at = datetime.now(UTC) - timedelta(seconds=n)
    return {"id": f"doc_{n}", "document_id": f"{n}.pdf", "status": "completed", "created_at": at, "updated_at": at}


def _subscription(n: int) -> dict[str, object]:
    updated_at = datetime.now(UTC) - timedelta(seconds=n)
    return {"id": f"sub_{n}", "customer": f"cus_{n}", "status": "past_due", "updated_at": updated_at}


def _invoice(n: int) -> dict[str, object]:
    ids = {"id": f"in_{n}", "customer": f"cus_{n}", "subscription": f"sub_{n}", "seen_event": "e", "seen_created": n}
    amounts = {"amount_due": 1900, "amount_remaining": 1900, "currency": "eur", "created": n}
    return ids | amounts | {"state": "open", "renews": True, "sent": False, "last_try": False}
