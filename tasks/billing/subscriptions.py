"""Subscriptions: the last known Stripe status, and our status computed from it and the invoices.

Our status is always recomputed from the stored facts, never changed step by step.
"""

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
from tasks.orders import access, subscriptions_without_checkout
from tasks.orders.product_grants import Item, Price, make_item
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, parse, ref, require


class SubscriptionSnapshot(NamedTuple):
    """A subscription as an event or Stripe's API shows it. An invoice shows only its customer."""

    customer: str
    version: Version | None = None
    items: list[Item] | None = None


class SubscriptionItem(Struct):
    """One price of a subscription; API versions without prices call it `plan`."""

    price: Price | None = None
    plan: Price | None = None
    quantity: Int64 | None = None


class SubscriptionItems(Struct):
    data: list[SubscriptionItem] = field(default_factory=list)
    has_more: bool = False


class SubscriptionObject(Struct):
    """The fields that we use of https://docs.stripe.com/api/subscriptions/object."""

    id: Id | None = None
    customer: Ref = None
    customer_account: Id | None = None  # instead of `customer`, if that is an account (Accounts v2)
    status: Text | None = None
    items: SubscriptionItems | None = None
    trial_end: UnixTime | None = None


def subscription_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.subscription.created, updated, deleted, paused, resumed: update status, dunning and access."""
    return _apply_event(attempt, db, parse(attempt.event.body, StripeEvent[SubscriptionObject]))[1]


def trial_will_end(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.subscription.trial_will_end: as any change; notify the customer if the trial still runs."""
    event = parse(attempt.event.body, StripeEvent[SubscriptionObject])
    row, jobs = _apply_event(attempt, db, event)
    if row.stripe_status != "trialing":
        return jobs
    trial_end = require(event.data.object.trial_end, "data.object.trial_end")
    notification = notify_customer(
        db,
        attempt,
        "trial_will_end",
        None,
        customer=row.customer,
        about=row.id,
        subscription=row.id,
        trial_end=iso_date(trial_end),
    )
    return [notification, *jobs]


def fetch_current(attempt: Attempt, db: Session, subscription: str | None, created: int) -> SubscriptionSnapshot | None:
    """The subscription as Stripe has it now; None without an API key, or if Stripe does not know it. May commit.

    `created` is the creation time of the event being handled: the snapshot is never older than that.
    """
    found = refetch.fetch_current(attempt, db, stripe.fetch_subscription, subscription, SubscriptionObject)
    return _snapshot(found, refetch.observed_at(attempt, created), attempt.event.id, fetched=True) if found else None


def upsert_snapshot(attempt: Attempt, db: Session, subscription: str, new: SubscriptionSnapshot) -> Subscription:
    """The subscription's row, locked, updated from the snapshot if that is newer."""
    row, _ = upsert_locked(db, Subscription, id=subscription, customer=new.customer, status="", updated_at=attempt.now)
    version = new.version
    if version is not None and is_newer(version, _current_version(row), SUBSCRIPTION_ORDER):
        row.stripe_status, row.seen_created, row.seen_event = version.state, version.at, version.event
        row.items = new.items
    return row


def recompute(attempt: Attempt, db: Session, invoices: ColumnElement[bool], row: Subscription | None) -> list[FollowUp]:
    """Recompute dunning, status and access after a fact has changed; returns the jobs to enqueue.

    `invoices` selects the subscription's invoices; `row` is its locked row, None for an invoice without subscription.
    """
    db.flush()
    stripe_status = row.stripe_status if row is not None else None
    unpaid = list(db.scalars(select(Invoice).where(invoices, dunning.FAILING).order_by(Invoice.id)))
    failing = [one for one in unpaid if not dunning.is_sign_up_invoice(one, stripe_status)]
    if stripe_status in FINAL:
        failing = []
    dunning.cancel_settled(attempt, db, invoices, failing)
    is_unpaid = stripe_status == "unpaid"
    jobs = [job for one in failing for job in dunning.plan_next_step(attempt, db, one, unpaid=is_unpaid)]
    if row is not None:
        renewed_at = access.last_renewal_at(db, row.id)  # older debts do not withhold a period that was paid
        current = [invoice.id for invoice in failing if invoice.created >= renewed_at]
        status = derive_status(
            stripe_status or ("incomplete" if unpaid and not failing else None),
            failing=bool(current),
            given_up=_exists(db, PaymentGrace.invoice.in_(current) & (PaymentGrace.state == "over")),
            paid_since=_exists(db, invoices & (Invoice.state == "paid") & (Invoice.seen_created > row.seen_created)),
        )
        if row.status != status:
            row.status, row.updated_at = status, attempt.now
        jobs += access.sync_entitlements(db, attempt, subscription=row.id)
    return jobs


def _apply_event(
    attempt: Attempt, db: Session, event: StripeEvent[SubscriptionObject]
) -> tuple[Subscription, list[FollowUp]]:
    created = require(event.created, "created")
    subscription = require(event.data.object.id, "data.object.id")
    from_event = _snapshot(event.data.object, created, attempt.event.id)
    snapshot = fetch_current(attempt, db, subscription, created) or from_event
    entitling = snapshot.version is not None and snapshot.version.state in access.ENTITLING
    jobs = subscriptions_without_checkout.enqueue_recording(attempt, db, subscription) if entitling else []
    row = upsert_snapshot(attempt, db, subscription, snapshot)
    return row, [*jobs, *recompute(attempt, db, Invoice.subscription == row.id, row)]


def _snapshot(found: SubscriptionObject, at: int, event: str, *, fetched: bool = False) -> SubscriptionSnapshot:
    status = require(found.status, "data.object.status")
    customer = require(ref(found.customer) or found.customer_account, "data.object.customer")
    return SubscriptionSnapshot(customer, Version(status, at, event, fetched), _items(found.items))


def _items(found: SubscriptionItems | None) -> list[Item] | None:
    """The items, or None if the list is incomplete: access to unlisted items must not be revoked."""
    if found is None or found.has_more:
        return None
    return [make_item(one.price or one.plan, one.quantity) for one in found.data]


def _current_version(row: Subscription) -> Version | None:
    return Version(row.stripe_status, row.seen_created, row.seen_event) if row.stripe_status else None


def _exists(db: Session, condition: Any) -> bool:
    return bool(db.scalar(select(exists().where(condition))))
