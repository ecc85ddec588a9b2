"""Invoices: the fields we use, in old and new API versions of Stripe, and the newest known version of each, stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET, Struct, UnsetType, field
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.billing.invoice_lines import InvoiceLines, latest_period_end, stored_lines
from tasks.billing.refetch import observed_at
from tasks.billing.subscription_state import INVOICE_ORDER, Version, is_newer
from tasks.clients import stripe, stripe_payments
from tasks.connected_accounts import account_of
from tasks.db.locking import upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import Invoice
from tasks.orders import invoice_payments
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, convert, metadata_of, ref, require, short

# Billing reasons of invoices for a billing period. None: not included, in events of old API versions.
RENEWAL_REASONS = frozenset({None, "subscription", "subscription_create", "subscription_cycle", "quote_accept"})


class SubscriptionDetails(Struct):
    subscription: Ref = None
    metadata: dict[str, Any] | None = None


class Parent(Struct):
    subscription_details: SubscriptionDetails | None = None


class FinalizationError(Struct):
    code: Text | None = None
    decline_code: Text | None = None


class Uncollectible(Struct):
    reason: Text | None = None


class InvoiceStatusDetails(Struct):
    uncollectible: Uncollectible | None = None


class InvoiceObject(Struct):
    """An invoice. `subscription` is under `parent` since API version 2025-03-31 (basil), before on the invoice."""

    id: Id | None = None
    number: Text | None = None  # as printed on the invoice
    customer: Ref = None
    customer_account: Id | None = None  # instead of `customer`, if that is an account (Accounts v2)
    customer_email: Text | None = None
    customer_phone: Text | None = None
    subscription: Ref = None
    payment_intent: Ref = None  # before API version 2025-03-31 (basil)
    parent: Parent | None = None
    status: Text | None = None
    amount_due: Int64 | None = None  # less than the total if a credit was applied
    amount_remaining: Int64 | None = None  # of amount_due, after partial payments
    total: Int64 | None = None
    currency: Text | None = None
    attempt_count: Int64 = 0
    next_payment_attempt: UnixTime | UnsetType | None = UNSET
    auto_advance: bool | None = None  # False: Stripe does not collect it by itself
    status_details: InvoiceStatusDetails | None = None
    pre_payment_credit_notes_amount: Int64 | None = None
    hosted_invoice_url: Text | None = None
    billing_reason: Text | None = None
    lines: InvoiceLines = field(default_factory=InvoiceLines)
    collection_method: Text | None = None
    due_date: UnixTime | None = None  # if collection_method is send_invoice
    last_finalization_error: FinalizationError | None = None
    created: UnixTime = 0
    metadata: dict[str, Any] | None = None
    subscription_details: SubscriptionDetails | None = None  # before API version 2025-03-31 (basil)

    @property
    def customer_id(self) -> str | None:
        return ref(self.customer) or self.customer_account

    @property
    def subscription_id(self) -> str | None:
        details = self.parent.subscription_details if self.parent else None
        return ref(details.subscription if details else None) or ref(self.subscription)

    @property
    def meta(self) -> dict[str, str]:
        """Its own metadata, and that of its subscription when it was created."""
        details = (self.parent.subscription_details if self.parent else None) or self.subscription_details
        return metadata_of(details.metadata if details else None) | metadata_of(self.metadata)

    @property
    def sent(self) -> bool:
        """Whether it is sent to the customer to be paid manually: it is never charged and has no next attempt."""
        return self.collection_method == "send_invoice"

    @property
    def last_try(self) -> bool:
        """Whether Stripe makes no further attempt. A sent invoice has until its due date; without one, no end."""
        return self.due_date is not None if self.sent else self.next_payment_attempt is None

    @property
    def forgiven(self) -> bool:
        """Whether a person has waived it: uncollectible, but no debt any more. The reason is given since 2026-09-30."""
        details = self.status_details.uncollectible if self.status_details else None
        return details is not None and details.reason == "user_forgiven"

    @property
    def credited(self) -> bool:
        """Whether credit notes took all of it back before it was paid. Stripe calls it paid, but no money has arrived.

        https://docs.stripe.com/invoicing/integration/programmatic-credit-notes
        """
        return 0 < (self.total or 0) <= (self.pre_payment_credit_notes_amount or 0)

    @property
    def decline_code(self) -> str | None:
        """The reason, if the invoice includes it; usually it holds only the ids of charge and payment intent."""
        error = self.last_finalization_error
        return (error.decline_code or error.code) if error else None


def renews(invoice: InvoiceObject) -> bool:
    """Whether it pays for a billing period of its subscription, and not for a proration, an extra, or a trial.

    A cycle's invoice does, also if a coupon or credit leaves nothing to pay. A plan change is billed as a proration,
    unless it starts a new period: then the invoice has a line for that. A missing billing reason counts as a renewal.
    https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason
    """
    if invoice.billing_reason == "subscription_cycle":
        return True
    total = invoice.amount_due if invoice.total is None else invoice.total
    if not total or total < 0:
        return False
    if invoice.billing_reason == "subscription_update":
        return any(line.starts_period for line in invoice.lines.data)
    return invoice.billing_reason in RENEWAL_REASONS


@dataclass(frozen=True, slots=True)
class InvoiceSnapshot:
    """An invoice as an event or Stripe's API shows it; `fetched` is the API's whole response, None for an event."""

    object: InvoiceObject
    version: Version
    fetched: dict[str, Any] | None = None

    @property
    def customer(self) -> str:
        return require(self.object.customer_id, "data.object.customer")


def snapshot_from_event(attempt: Attempt, event: StripeEvent[InvoiceObject], state: str) -> InvoiceSnapshot:
    """The invoice as in the event. Raises PermanentError if a required field is missing."""
    require(event.data.object.id, "data.object.id")
    require(event.data.object.customer_id, "data.object.customer")
    require(event.data.object.amount_due, "data.object.amount_due")
    require(event.data.object.currency, "data.object.currency")
    state = "void" if state == "paid" and event.data.object.credited else state
    return InvoiceSnapshot(event.data.object, Version(state, require(event.created, "created"), attempt.event.id))


def fetch_current(attempt: Attempt, db: Session, from_event: InvoiceSnapshot) -> InvoiceSnapshot:
    """The invoice as Stripe has it now; `from_event` without an API key, or if Stripe does not know it. May commit."""
    return fetch(attempt, db, from_event.object.id, from_event.version.at) or from_event


def fetch(attempt: Attempt, db: Session, invoice: str | None, created: int = 0) -> InvoiceSnapshot | None:
    """The invoice as Stripe has it now; None without an API key, or if Stripe does not know it. May commit.

    `created`: when the event being handled was created, 0 if it does not tell of the invoice.
    """
    if not invoice or not attempt.settings.stripe_api_key:
        return None
    try:
        with outside_transaction(db):
            found = stripe.fetch_invoice(attempt, invoice)
    except stripe.Refused:
        return None
    return snapshot_from_stripe(attempt, found, created)


def snapshot_from_stripe(attempt: Attempt, found: dict[str, Any], created: int = 0) -> InvoiceSnapshot:
    """A snapshot of a fetched invoice. `created`: when the event being handled was created, 0 if there is none."""
    invoice = convert(found, InvoiceObject)
    state = invoice.status if invoice.status in INVOICE_ORDER else "open"
    state = "void" if state == "paid" and invoice.credited else state
    return InvoiceSnapshot(
        invoice, Version(state, observed_at(attempt, created), attempt.event.id, fetched=True), found
    )


def decline_reason(attempt: Attempt, snapshot: InvoiceSnapshot) -> str | None:
    """The bank's decline code, None if not known. The handler does not fail for its lack."""
    if snapshot.fetched is None:
        return snapshot.object.decline_code
    try:
        return stripe_payments.fetch_payment(attempt, snapshot.fetched).code or snapshot.object.decline_code
    except PermanentError:  # a key that may not read payments
        return snapshot.object.decline_code


def upsert_snapshot(attempt: Attempt, db: Session, new: InvoiceSnapshot) -> Invoice:
    """The invoice's row, locked, updated from the snapshot if that is newer."""
    values = {"account": account_of(attempt), **row_values(new)}
    row, inserted = upsert_locked(db, Invoice, **values)
    invoice_payments.record(attempt, db, ref(new.object.payment_intent), row.id)
    if not inserted and is_newer(new.version, Version(row.state, row.seen_created, row.seen_event), INVOICE_ORDER):
        for name, value in values.items():
            setattr(row, name, value)
    return row


def row_values(new: InvoiceSnapshot) -> dict[str, Any]:
    """The columns of the invoice's row, except its account."""
    invoice = new.object
    lines = stored_lines(invoice.lines.data, invoice.billing_reason)
    return {
        "id": require(invoice.id, "data.object.id"),
        "number": invoice.number,
        "customer": new.customer,
        "subscription": invoice.subscription_id,
        "state": new.version.state,
        "amount_due": require(invoice.amount_due, "data.object.amount_due"),
        "amount_remaining": invoice.amount_due if invoice.amount_remaining is None else invoice.amount_remaining,
        "renews": renews(invoice),
        "lines": lines,
        "lines_complete": bool(lines) and not invoice.lines.has_more,
        "period_end": latest_period_end(lines),
        "meta": invoice.meta or None,
        "currency": require(invoice.currency, "data.object.currency"),
        "hosted_invoice_url": invoice.hosted_invoice_url,
        "email": short(invoice.customer_email),
        "phone": invoice.customer_phone,
        "billing_reason": invoice.billing_reason,
        "sent": invoice.sent,
        "due_date": invoice.due_date,
        "last_try": invoice.last_try,
        "next_try": invoice.next_payment_attempt or None,
        "auto_advance": invoice.auto_advance is not False,
        "forgiven": new.version.state == "uncollectible" and invoice.forgiven,
        "created": invoice.created,
        "seen_created": new.version.at,
        "seen_event": new.version.event,
    }
