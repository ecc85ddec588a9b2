"""Invoices: what we use of Stripe's, by old API versions and new ones, and the newest known of each in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.billing.refetch import observed_at
from tasks.billing.subscription_state import INVOICE_ORDER, Version, is_newer
from tasks.clients import stripe
from tasks.db.locking import upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import Invoice
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, convert, ref, require

# None: by what an old event, or a peer of Stripe's, does not tell.
RENEWAL_REASONS = frozenset({None, "subscription", "subscription_create", "subscription_cycle", "quote_accept"})


class ItemDetails(Struct):
    proration: bool = False


class LineParent(Struct):
    subscription_item_details: ItemDetails | None = None


class SubscriptionDetails(Struct):
    subscription: Ref = None


class Parent(Struct):
    subscription_details: SubscriptionDetails | None = None


class LineItem(Struct):
    """What it is of stands under `parent` since Stripe's version basil; before that on the line itself."""

    amount: Int64 = 0
    type: Text | None = None
    proration: bool = False
    parent: LineParent | None = None

    @property
    def begins_a_time(self) -> bool:
        """Is it a plan's price for a whole new time?"""
        if self.parent is None:
            return self.amount > 0 and self.type == "subscription" and not self.proration
        item = self.parent.subscription_item_details
        return self.amount > 0 and item is not None and not item.proration


class Lines(Struct):
    data: list[LineItem] = field(default_factory=list)


class FinalizationError(Struct):
    code: Text | None = None
    decline_code: Text | None = None


class InvoiceObject(Struct):
    """`subscription` stands under `parent` since Stripe's version basil; before that on the invoice itself."""

    id: Id | None = None
    number: Text | None = None  # by which the customer knows it
    customer: Ref = None
    customer_account: Id | None = None  # in its place, where the customer is an account (Accounts v2)
    customer_email: Text | None = None
    customer_phone: Text | None = None
    subscription: Ref = None
    parent: Parent | None = None
    status: Text | None = None
    amount_due: Int64 | None = None  # what is to be collected: less than the total if there was credit
    amount_remaining: Int64 | None = None  # after what was paid of it
    total: Int64 | None = None
    currency: Text | None = None
    attempt_count: Int64 = 0
    next_payment_attempt: UnixTime | UnsetType | None = UNSET
    hosted_invoice_url: Text | None = None
    billing_reason: Text | None = None
    lines: Lines = field(default_factory=Lines)
    collection_method: Text | None = None
    due_date: UnixTime | None = None  # of one that is sent to be paid by hand
    last_finalization_error: FinalizationError | None = None
    created: UnixTime = 0

    @property
    def customer_id(self) -> str | None:
        return ref(self.customer) or self.customer_account

    @property
    def subscription_id(self) -> str | None:
        details = self.parent.subscription_details if self.parent else None
        return ref(details.subscription if details else None) or ref(self.subscription)

    @property
    def sent(self) -> bool:
        """Is it sent to be paid by hand? Then nobody tries to collect it, and no next try is ever announced."""
        return self.collection_method == "send_invoice"

    @property
    def last_try(self) -> bool:
        """Has Stripe tried for the last time? What is sent has until it is due; without a day there is no last try."""
        return self.due_date is not None if self.sent else self.next_payment_attempt is None

    @property
    def decline_code(self) -> str | None:
        """What the event itself tells of the reason; it has no more than the ids of charge and payment intent."""
        error = self.last_finalization_error
        return (error.decline_code or error.code) if error else None


def renews(invoice: InvoiceObject) -> bool:
    """Does it pay for a time of its subscription, and not for a difference, an extra, or nothing?

    A change of plan is billed as a difference, unless a new time begins with it: then it has a line for that. What an
    event does not tell of counts. https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason
    """
    total = invoice.amount_due if invoice.total is None else invoice.total
    if not total or total < 0:
        return False
    if invoice.billing_reason == "subscription_update":
        return any(line.begins_a_time for line in invoice.lines.data)
    return invoice.billing_reason in RENEWAL_REASONS


@dataclass(frozen=True, slots=True)
class InvoiceSnapshot:
    """An invoice as it was seen; `fetched` is Stripe's whole answer where it was asked."""

    object: InvoiceObject
    seen: Version
    fetched: dict[str, Any] | None = None

    @property
    def customer(self) -> str:
        return require(self.object.customer_id, "data.object.customer")


def snapshot_from_event(attempt: Attempt, event: StripeEvent[InvoiceObject], state: str) -> InvoiceSnapshot:
    """The invoice as its event has it."""
    require(event.data.object.id, "data.object.id")
    require(event.data.object.customer_id, "data.object.customer")
    require(event.data.object.amount_due, "data.object.amount_due")
    require(event.data.object.currency, "data.object.currency")
    return InvoiceSnapshot(event.data.object, Version(state, require(event.created, "created"), attempt.event.id))


def fetch_current(attempt: Attempt, db: Session, told: InvoiceSnapshot) -> InvoiceSnapshot:
    """The invoice as it is at Stripe now; as it was told without a key, or where Stripe does not know it. Commits."""
    if not attempt.settings.stripe_api_key:
        return told
    try:
        with outside_transaction(db):
            found = stripe.fetch_invoice(attempt, str(told.object.id))
    except stripe.Refused:
        return told
    return snapshot_from_stripe(attempt, found, told.seen.at)


def snapshot_from_stripe(attempt: Attempt, found: dict[str, Any], created: int = 0) -> InvoiceSnapshot:
    """What Stripe answered just now, on account of an event of that age."""
    invoice = convert(found, InvoiceObject)
    state = invoice.status if invoice.status in INVOICE_ORDER else "open"
    return InvoiceSnapshot(
        invoice, Version(state, observed_at(attempt, created), attempt.event.id, fetched=True), found
    )


def decline_reason(attempt: Attempt, seen: InvoiceSnapshot) -> str | None:
    """The bank's reason, where it can be known. It is not worth failing for."""
    if seen.fetched is None:
        return seen.object.decline_code
    try:
        return stripe.fetch_payment(attempt, seen.fetched).code or seen.object.decline_code
    except PermanentError:  # a key that may not read payments
        return seen.object.decline_code


def upsert_snapshot(attempt: Attempt, db: Session, new: InvoiceSnapshot) -> Invoice:
    """The invoice's row, locked, with what was seen if that is news."""
    values = _values(new)
    row, inserted = upsert_locked(db, Invoice, **values)
    if not inserted and is_newer(new.seen, Version(row.state, row.seen_created, row.seen_event), INVOICE_ORDER):
        for name, value in values.items():
            setattr(row, name, value)
    return row


def _values(new: InvoiceSnapshot) -> dict[str, Any]:
    invoice = new.object
    return {
        "id": require(invoice.id, "data.object.id"),
        "number": invoice.number,
        "customer": new.customer,
        "subscription": invoice.subscription_id,
        "state": new.seen.state,
        "amount_due": require(invoice.amount_due, "data.object.amount_due"),
        "amount_remaining": invoice.amount_due if invoice.amount_remaining is None else invoice.amount_remaining,
        "renews": renews(invoice),
        "currency": require(invoice.currency, "data.object.currency"),
        "hosted_invoice_url": invoice.hosted_invoice_url,
        "email": invoice.customer_email,
        "phone": invoice.customer_phone,
        "billing_reason": invoice.billing_reason,
        "sent": invoice.sent,
        "due_date": invoice.due_date,
        "last_try": invoice.last_try,
        "created": invoice.created,
        "seen_created": new.seen.at,
        "seen_event": new.seen.event,
    }
