"""A request to look at what Stripe could not deliver: an event of our own. tasks/billing/reconcile.py does it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from inbox.event import Event
from inbox.store import Store
from tasks import broker
from tasks.routes import jobs_for

SOURCE, EVENT_TYPE, ORDERING_KEY = "holdfast", "reconcile.due", "reconcile"


def request_reconcile(store: Store, event_id: str, days: int | None = None) -> None:
    """Record a request to look, unless it is known; a worker will do it. Raises StoreUnavailable."""
    event = Event(SOURCE, event_id, EVENT_TYPE, json.dumps({"days": days} if days else {}).encode())
    broker.ring(store.record(event, jobs_for(SOURCE, event_id, EVENT_TYPE, ORDERING_KEY), counted="due") or ())


def request_reconcile_now(store: Store, days: int | None) -> str:
    """For a person: two who ask in one second have asked for the same. Answers the request's event id."""
    event_id = f"reconcile:{datetime.fromtimestamp(store.now_ms() / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
    request_reconcile(store, event_id, days)
    return event_id
