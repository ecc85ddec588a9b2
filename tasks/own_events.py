"""Events that Holdfast records itself: requests and timers."""

from __future__ import annotations

from typing import Any

import msgspec

from inbox.event import Event
from inbox.store import Store
from tasks import broker
from tasks.routes import OWN_SOURCE, jobs_for


def record_own_event(store: Store, event_id: str, event_type: str, body: Any, ordering_key: str = "") -> None:
    """Record an event with its jobs, unless one with this id is recorded. Raises StoreUnavailable.

    `body` is stored as JSON; it may hold the decimals of Stripe's objects.
    """
    event = Event(OWN_SOURCE, event_id, event_type, msgspec.json.encode(body))
    broker.ring(store.record(event, jobs_for(OWN_SOURCE, event_id, event_type, ordering_key), counted="due") or ())
