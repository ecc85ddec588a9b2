"""Subscriptions: Stripe's word for each, and what follows from it and from the invoices. Derived, never stepped."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct, field
from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from tasks.billing import dunning, refetch
from tasks.billing.subscription_state import FINAL, SUBSCRIPTION_ORDER, Version, derive_status, is_newer
from tasks.clients import stripe
from tasks.db.locking import upsert_locked
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, PaymentGrace, Subscription
from tasks.notifications.localize import iso_date
from tasks.notifications.notify import notify_customer
from tasks.orders import access, direct_subscriptions
from tasks.orders.entitlements import Item, Price, make_item
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, parse, ref, require


class SubscriptionSnapshot(NamedTuple):
    """What is said of a subscription: by an invoice of it no more than the customer."""

    customer: str
    seen: Version | None = None
    items: list[Item] | None = None


class SubscriptionItem(Struct):
    """One price of a subscription; API versions before there were prices call it `plan`."""

    price: Price | None = None
    plan: Price | None = None
    quantity: Int64 | None = None


class SubscriptionItems(Struct):
    data: list[SubscriptionItem] = field(default_factory=list)
    has_more: bool = False


class SubscriptionObject(Struct):
    """What we use of Stripe's subscription."""

    id: Id | None = None
    customer: Ref = None
    customer_account: Id | None = None  # in its place, where the customer is an account (Accounts v2)
    status: Text | None = None
    items: SubscriptionItems | None = None
    trial_end: UnixTime | None = None


def subscription_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.subscription.created, updated, deleted, paused, resumed: the row, dunning and access follow."""
    return _apply_event(attempt, db, parse(attempt.event.body, StripeEvent[SubscriptionObject]))[1]


def trial_will_end(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.subscription.trial_will_end: as any change, and the customer is told, if it is still on trial."""
    event = parse(attempt.event.body, StripeEvent[SubscriptionObject])
    row, owed = _apply_event(attempt, db, event)
    if row.stripe_status != "trialing":
        return owed
    trial_end = require(event.data.object.trial_end, "data.object.trial_end")
    told = notify_customer(
        db,
        attempt,
        "trial_will_end",
        None,
        customer=row.customer,
        about=row.id,
        subscription=row.id,
        trial_end=iso_date(trial_end),
    )
    return [told, *owed]


def fetch_current(attempt: Attempt, db: Session, subscription: str | None, created: int) -> SubscriptionSnapshot | None:
    """Stripe's present word for a subscription; None without a key, or where Stripe does not know it.

    `created` is the age of the event that made us look: what is fetched is never older. Commits.
    """
    found = refetch.fetch_current(attempt, db, stripe.fetch_subscription, subscription, SubscriptionObject)
    return _snapshot(found, refetch.observed_at(attempt, created), attempt.event.id, fetched=True) if found else None


def upsert_snapshot(attempt: Attempt, db: Session, subscription: str, word: SubscriptionSnapshot) -> Subscription:
    """The subscription's row, locked, with Stripe's word for it if that is news."""
    row, _ = upsert_locked(db, Subscription, id=subscription, customer=word.customer, status="", updated_at=attempt.now)
    seen = word.seen
    if seen is not None and is_newer(seen, _current_version(row), SUBSCRIPTION_ORDER):
        row.stripe_status, row.seen_created, row.seen_event = seen.state, seen.at, seen.event
        row.items = word.items
    return row


def recompute(attempt: Attempt, db: Session, mine: ColumnElement[bool], row: Subscription | None) -> list[FollowUp]:
    """After a fact has changed: dunning, status and access as they now should be.

    `mine` selects the subscription's invoices; `row` is its locked row, None for an invoice without subscription.
    """
    db.flush()
    word = row.stripe_status if row is not None else None
    unpaid = list(db.scalars(select(Invoice).where(mine, dunning.FAILING).order_by(Invoice.id)))
    failing = [] if word in FINAL else [invoice for invoice in unpaid if not dunning.is_sign_up_invoice(invoice, word)]
    dunning.cancel_settled(attempt, db, mine, failing)
    owed = [job for invoice in failing for job in dunning.plan_next_step(attempt, db, invoice, unpaid=word == "unpaid")]
    if row is not None:
        renewed_at = access.last_renewal_at(
            db, row.id
        )  # what is older is a debt, but no reason to withhold what was paid for
        current = [invoice.id for invoice in failing if invoice.created >= renewed_at]
        status = derive_status(
            word or ("incomplete" if unpaid and not failing else None),
            failing=bool(current),
            given_up=_exists(db, PaymentGrace.invoice.in_(current) & (PaymentGrace.state == "over")),
            paid_since=_exists(db, mine & (Invoice.state == "paid") & (Invoice.seen_created > row.seen_created)),
        )
        if row.status != status:
            row.status, row.updated_at = status, attempt.now
        owed += access.sync_entitlements(db, attempt, subscription=row.id)
    return owed


def _apply_event(
    attempt: Attempt, db: Session, event: StripeEvent[SubscriptionObject]
) -> tuple[Subscription, list[FollowUp]]:
    created = require(event.created, "created")
    subscription = require(event.data.object.id, "data.object.id")
    told = _snapshot(event.data.object, created, attempt.event.id)
    word = fetch_current(attempt, db, subscription, created) or told
    gives = word.seen is not None and word.seen.state in access.ENTITLING
    owed = direct_subscriptions.enqueue_recording(attempt, db, subscription) if gives else []
    row = upsert_snapshot(attempt, db, subscription, word)
    return row, [*owed, *recompute(attempt, db, Invoice.subscription == row.id, row)]


def _snapshot(found: SubscriptionObject, at: int, event: str, *, fetched: bool = False) -> SubscriptionSnapshot:
    status = require(found.status, "data.object.status")
    customer = require(ref(found.customer) or found.customer_account, "data.object.customer")
    return SubscriptionSnapshot(customer, Version(status, at, event, fetched), _items(found.items))


def _items(found: SubscriptionItems | None) -> list[Item] | None:
    """All of them, or None: what is left out of a list must not be taken away."""
    if found is None or found.has_more:
        return None
    return [make_item(one.price or one.plan, one.quantity) for one in found.data]


def _current_version(row: Subscription) -> Version | None:
    return Version(row.stripe_status, row.seen_created, row.seen_event) if row.stripe_status else None


def _exists(db: Session, which: Any) -> bool:
    return bool(db.scalar(select(exists().where(which))))
