"""Signed Stripe events as complete HTTP requests, and the same events for a record. Every event is new."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any

from cli import stripe_events
from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.store import Store
from tasks.ingest import build_delivery, identify_stripe_event

SECRET = "whsec_of_the_benchmark_0123456789"
BYTES = 3700  # of a body, as of a typical invoice event
PLACEHOLDER = "@" * 20  # replaced by the event's number
PADDING = "~"
NUMBERS = itertools.count(1)  # unique across rounds, so that no event is sent twice
BATCH = 100


def bodies() -> Iterator[bytes]:
    """Each an invoice.payment_failed of BYTES bytes. Its number is in each id, so that no two share a customer."""
    now = int(time.time())
    invoice = stripe_events.failed_invoice(0, "ada@example.com", 1, now, stripe_events.NEW_VERSION)
    invoice |= {"id": f"in_{PLACEHOLDER}", "customer": f"cus_{PLACEHOLDER}", "description": PADDING}
    body = stripe_events.event(0, "invoice.payment_failed", invoice, now).decode()
    body = body.replace(stripe_events.event_id(0), f"evt_{PLACEHOLDER}")
    body = body.replace(PADDING, "x" * (BYTES - len(body) + len(PADDING)))
    return (body.replace(PLACEHOLDER, f"{number:020}").encode() for number in NUMBERS)


def subscription_bodies() -> Iterator[bytes]:
    """Each a customer.subscription.updated, which a handler with an API key fetches. No two share a customer."""
    now = int(time.time())
    body = stripe_events.event(0, "customer.subscription.updated", subscription(PLACEHOLDER, now), now).decode()
    body = body.replace(stripe_events.event_id(0), f"evt_{PLACEHOLDER}")
    return (body.replace(PLACEHOLDER, f"{number:020}").encode() for number in NUMBERS)


def subscription(name: str, now: int) -> dict[str, Any]:
    """An active subscription to one price; its id and its customer's end in `name`."""
    item = {"id": "si_1", "quantity": 1, "price": {"id": "price_1", "product": "prod_1"}}
    items = {"object": "list", "data": [item], "has_more": False}
    found = stripe_events.subscription(0, "active", now)
    return found | {"id": f"sub_{name}", "customer": f"cus_{name}", "items": items}


def signed_requests(events: Iterable[bytes] | None = None) -> Iterator[bytes]:
    """Requests with these bodies; by default those of bodies()."""
    for body in events or bodies():
        signature = stripe_events.signature(body, SECRET, int(time.time()))
        head = (
            "POST /stripe-webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Stripe-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def new_events(count: int) -> Iterator[NewEvent]:
    """Events with their jobs, as the receiver records them."""
    for body in itertools.islice(bodies(), count):
        yield build_delivery("stripe", identify_stripe_event(body.decode()), body)


def record(store: Store, events: Iterable[NewEvent]) -> None:
    """Record events as the receiver does, many per round trip. Raises StoreUnavailable."""
    remaining = iter(events)
    while batch := list(itertools.islice(remaining, BATCH)):
        for outcome in store.record_all(batch):
            if isinstance(outcome, StoreUnavailable):
                raise outcome
