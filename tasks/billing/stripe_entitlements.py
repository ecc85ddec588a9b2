"""Stripe Entitlements in place of FULFILMENT (ENTITLEMENTS=stripe).

The subscriptions of a customer provide what Stripe lists as active entitlements, by the lookup keys of their features.

https://docs.stripe.com/billing/entitlements
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct, field
from sqlalchemy.orm import Session

from tasks.billing.refetch import observed_at
from tasks.clients import stripe
from tasks.connected_accounts import account_of, within
from tasks.db.locking import upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import EntitlementSummary
from tasks.orders import access
from tasks.payloads import Id, Ref, StripeEvent, convert, parse, ref, require

SUMMARY = "stripe"  # the value of ENTITLEMENTS


class ActiveEntitlement(Struct):
    lookup_key: Id | None = None  # of its feature


class ActiveEntitlements(Struct):
    data: list[ActiveEntitlement] = field(default_factory=list)
    has_more: bool = False


class SummaryObject(Struct):
    """The fields that we use of https://docs.stripe.com/api/entitlements/active-entitlement-summary."""

    customer: Ref = None
    entitlements: ActiveEntitlements = field(default_factory=ActiveEntitlements)


class Snapshot(NamedTuple):
    """A list of entitlements. `rank`: of two, the higher one counts; a complete list is never replaced by a part."""

    found: ActiveEntitlements
    at: int
    event: str
    fetched: bool

    @property
    def rank(self) -> tuple[bool, int, bool, str]:
        return not self.found.has_more, self.at, self.fetched, self.event


def summary_updated(attempt: Attempt, db: Session) -> list[FollowUp]:
    """entitlements.active_entitlement_summary.updated: with ENTITLEMENTS=stripe, store the list and update access."""
    if attempt.settings.entitlements != SUMMARY:
        return []
    event = parse(attempt.event.body, StripeEvent[SummaryObject])
    customer = require(ref(event.data.object.customer), "data.object.customer")
    created = require(event.created, "created")
    from_event = Snapshot(event.data.object.entitlements, created, attempt.event.id, fetched=False)
    _store(attempt, db, customer, _fetch(attempt, db, customer, created) or from_event)
    return access.sync_entitlements(db, attempt, customer=customer)


def fetch_if_unknown(attempt: Attempt, db: Session, customer: str) -> None:
    """Fetch and store the list of a customer that no event has named yet. May commit; needs a key."""
    if attempt.settings.entitlements != SUMMARY:
        return
    known = db.get(EntitlementSummary, within(account_of(attempt), customer)) is not None
    if not known and (snapshot := _fetch(attempt, db, customer, 0)):
        _store(attempt, db, customer, snapshot)


def _fetch(attempt: Attempt, db: Session, customer: str, created: int) -> Snapshot | None:
    if not attempt.settings.stripe_api_key:
        return None
    try:
        with outside_transaction(db):
            found = {"data": stripe.list_active_entitlements(attempt, customer)}
    except stripe.Refused:
        return None
    return Snapshot(convert(found, ActiveEntitlements), observed_at(attempt, created), attempt.event.id, fetched=True)


def _store(attempt: Attempt, db: Session, customer: str, new: Snapshot) -> None:
    values = {
        "lookup_keys": sorted({one.lookup_key for one in new.found.data if one.lookup_key}),
        "complete": not new.found.has_more,
        "seen_created": new.at,
        "seen_event": new.event,
        "updated_at": attempt.now,
    }
    account = account_of(attempt)
    about = {"account": account, "customer": customer}
    row, inserted = upsert_locked(db, EntitlementSummary, id=within(account, customer), **about, **values)
    if not inserted and new.rank > (row.complete, row.seen_created, False, row.seen_event):
        for name, value in values.items():
            setattr(row, name, value)
