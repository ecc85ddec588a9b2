"""The thin twins of Stripe's snapshot events: `v1.invoice.paid` has the effect of `invoice.paid`.

A thin event names an object and does not contain it. So the object is fetched, and the snapshot event that Stripe would
have sent is recorded under the id of the twin: whichever of the two comes second is a duplicate. A thin event that does
not name its twin (`snapshot_event`, since 2026-09-30.endive) gets one of its own; if the real one comes too, handlers
see the same fact under two ids. https://docs.stripe.com/webhooks/migrate-snapshot-to-thin-events
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from sqlalchemy.orm import Session

from inbox import queries
from inbox.errors import BadPayload, PermanentError, TransientError
from inbox.store import Store
from tasks import broker
from tasks.clients import stripe
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.payloads import Id, Text, parse, require
from tasks.routes import THIN_PREFIX

UPCOMING = "v1.invoice.upcoming"


class ThinEvent(Struct):
    """The fields that we use of https://docs.stripe.com/api/v2/core/events/object."""

    type: Text
    created: Annotated[datetime, Meta(tz=True)]
    context: Id | None = None
    livemode: Any = None
    snapshot_event: Id | None = None
    related_object: Any = None


def record_twin(attempt: Attempt, db: Session) -> list[FollowUp]:
    """A thin event whose twin has a route: record the twin, unless it has arrived itself."""
    thin = parse(attempt.event.body, ThinEvent)
    twin = thin.snapshot_event or f"{attempt.event.id}.snapshot"
    with outside_transaction(db):
        store = broker.open_store(attempt.settings, timeout_seconds=5)
        with closing(store.client):
            if queries.find_event(store, "stripe", twin) is None:
                _record(attempt, store, _snapshot(attempt, thin, twin))
    return []


def _snapshot(attempt: Attempt, thin: ThinEvent, twin: str) -> bytes:
    """The snapshot event, with the object as it is now. Without a key, wait: the snapshot may come from Stripe."""
    if not attempt.settings.stripe_api_key:
        raise TransientError("a thin event does not contain its object; set STRIPE_API_KEY to fetch it")
    event = {
        "id": twin,
        "object": "event",
        "type": thin.type.removeprefix(THIN_PREFIX),
        "created": int(thin.created.timestamp()),
        "livemode": thin.livemode,
        "context": thin.context,
        "data": {"object": _fetch_object(attempt, thin)},
        "thin_event": attempt.event.id,
    }
    return msgspec.json.encode(event)


def _fetch_object(attempt: Attempt, thin: ThinEvent) -> dict[str, Any]:
    """The object of the event; an upcoming invoice has no id, so it is previewed."""
    if thin.type == UPCOMING and thin.related_object is None:
        subscription = stripe.fetch_event_data(attempt, attempt.event.id).get("subscription")
        return stripe.preview_invoice(attempt, str(require(subscription, "data.subscription")))
    return stripe.fetch_related(attempt)


def _record(attempt: Attempt, store: Store, body: bytes) -> None:
    settings = attempt.settings
    try:
        identity = identify_stripe_event(body.decode(), settings.accepted_mode, settings.stripe_connected_accounts)
    except BadPayload as error:
        raise PermanentError(str(error)) from None
    event, jobs, *_ = build_delivery("stripe", identity, body)
    broker.ring(store.record(event, jobs, counted="due") or ())
