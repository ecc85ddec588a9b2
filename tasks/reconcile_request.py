"""Requests to reconcile with Stripe: an event of our own, whose job is in tasks/billing/reconcile.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from inbox.event import Event
from inbox.store import Store
from tasks import broker
from tasks.routes import OWN_SOURCE, jobs_for

EVENT_TYPE, ORDERING_KEY = "reconcile.due", "reconcile"


def request_reconcile(store: Store, event_id: str, days: int | None = None) -> None:
    """Record a request, unless one with this id is recorded. Raises StoreUnavailable.

    `days`: fetch all events of so many days; None: the undelivered ones since the last run.
    """
    event = Event(OWN_SOURCE, event_id, EVENT_TYPE, json.dumps({"days": days} if days else {}).encode())
    jobs = jobs_for(OWN_SOURCE, event_id, EVENT_TYPE, ORDERING_KEY)
    broker.ring(store.record(event, jobs, counted="due") or ())


def request_reconcile_now(store: Store, days: int | None) -> str:
    """Record a request made by a person; returns its event id. Requests within one second are one request."""
    event_id = f"reconcile:{datetime.fromtimestamp(store.now_ms() / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
    request_reconcile(store, event_id, days)
    return event_id
