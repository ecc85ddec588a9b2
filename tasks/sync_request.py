"""Requests to compare our subscriptions with Stripe's; their jobs are in tasks/billing/subscription_sync.py."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog

from inbox.store import Store
from tasks.own_events import record_own_event

log = structlog.get_logger()

EVENT_TYPE, ORDERING_KEY = "subscriptions.due", "subscriptions"


def request_sync(store: Store, event_id: str, *, imports: bool = False, dry_run: bool = False, by: str = "") -> None:
    """Record a request, unless one with this id is recorded. Raises StoreUnavailable.

    `imports`: also subscriptions that we do not know. `by`: the key that requests it.
    """
    body = {"imports": imports, "dry_run": dry_run, "by": by}
    record_own_event(store, event_id, EVENT_TYPE, body, ORDERING_KEY)


def request_import(store: Store, *, dry_run: bool, by: str) -> str:
    """Record a request to import all subscriptions; returns its event id. Requests within one second are one."""
    event_id = f"subscriptions:{datetime.fromtimestamp(store.now_ms() / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
    request_sync(store, event_id, imports=True, dry_run=dry_run, by=by)
    log.info("import requested", request=event_id, by=by)
    return event_id
