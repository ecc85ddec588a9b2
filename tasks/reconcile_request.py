"""Requests to reconcile with Stripe: an event of our own, whose job is in tasks/billing/reconcile.py."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from inbox.store import Store
from tasks.own_events import record_own_event

log = structlog.get_logger()

EVENT_TYPE, ORDERING_KEY = "reconcile.due", "reconcile"


def request_reconcile(store: Store, event_id: str, days: int | None = None, by: str = "") -> None:
    """Record a request, unless one with this id is recorded. Raises StoreUnavailable.

    `days`: fetch all events of so many days; None: the undelivered ones since the last run.
    `by`: the key or command that requests it.
    """
    body = ({"days": days} if days else {}) | ({"by": by} if by else {})
    record_own_event(store, event_id, EVENT_TYPE, body, ORDERING_KEY)


def request_reconcile_now(store: Store, days: int | None, by: str) -> str:
    """Record a request by this key or command; returns its event id. Requests within one second are one request."""
    event_id = f"reconcile:{datetime.fromtimestamp(store.now_ms() / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
    request_reconcile(store, event_id, days, by)
    log.info("reconcile requested", request=event_id, by=by)
    return event_id
