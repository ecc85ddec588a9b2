"""Reminders of a payment to come: seven days before a trial ends, and before a subscription with long periods renews.

They are planned when the date becomes known and decided when they are sent: who has cancelled by then, or will not be
charged for another reason, gets none.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.billing import refetch, subscriptions
from tasks.billing.invoices import InvoiceObject
from tasks.billing.subscriptions import SubscriptionObject
from tasks.billing.terms import Terms, is_charged
from tasks.clients import stripe, stripe_payments
from tasks.connected_accounts import account_of
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, Notification, Order, Subscription
from tasks.notifications.kinds import Message
from tasks.notifications.localize import Day, Money
from tasks.notifications.notify import notify_customer
from tasks.notifications.recipients import Recipient, valid_email, valid_phone
from tasks.orders.product_grants import sold_items
from tasks.ownership import is_ours
from tasks.payloads import Int64, StripeEvent, UnixTime, convert, parse, product_of, ref, require


class Period(Struct):
    start: UnixTime = 0
    end: UnixTime = 0


class UpcomingLine(Struct):
    period: Period = field(default_factory=Period)


class UpcomingLines(Struct):
    data: list[UpcomingLine] = field(default_factory=list)


class UpcomingInvoice(InvoiceObject):
    """The invoice of invoice.upcoming, which has no id yet."""

    lines: UpcomingLines = field(default_factory=UpcomingLines)  # type: ignore[assignment]
    period_end: UnixTime | None = None

    @property
    def due_at(self) -> int:
        """When it will be charged."""
        return self.next_payment_attempt or require(self.period_end, "data.object.period_end")

    @property
    def period_seconds(self) -> int | None:
        """How long the longest period is that it pays for; None if its lines do not show that."""
        found = [line.period.end - line.period.start for line in self.lines.data]
        return max(found, default=None) or None


class PreviewObject(Struct):
    amount_due: Int64
    currency: str


def invoice_upcoming(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.upcoming: remind the customer of a renewal, if its period is at least RENEWAL_REMINDER_PERIOD long."""
    invoice = parse(attempt.event.body, StripeEvent[UpcomingInvoice]).data.object
    subscription, seconds = invoice.subscription_id, invoice.period_seconds
    if subscription is None or (seconds and seconds < attempt.settings.renewal_reminder_period):
        return []
    customer = require(invoice.customer_id, "data.object.customer")
    about: dict[str, Any] = {"due_at": invoice.due_at, "amount": invoice.amount_due, "currency": invoice.currency}
    return [
        notify_customer(
            db,
            attempt,
            "renewal_reminder",
            invoice.customer_email,
            customer=customer,
            about=subscription,
            count=invoice.due_at,
            **about,
        )
    ]


def trial_will_end(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the trial runs, ends at that time, and a payment follows."""
    found = _load(attempt, db, notification.about)
    if found is None:
        return None
    status, terms, customer = found
    ends_at = terms.get("trial_end") or 0
    planned_for = notification.params.get("ends_at", ends_at)  # not in rows of earlier versions
    if status != "trialing" or ends_at != planned_for or not _is_charged_at(attempt, terms, ends_at):
        return None
    if terms.get("needs_method") and not terms.get("has_method") and not _has_default_method(attempt, db, customer):
        return None
    amount = _preview(attempt, db, notification.about) or _sum(terms)
    if amount is not None and amount.minor <= 0:
        return None
    return Message({"trial_end": Day(ends_at), "amount": amount}, to=_known_address(attempt, db, customer))


def renewal_reminder(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the subscription is active and will be renewed then."""
    found = _load(attempt, db, notification.about)
    due_at = int(notification.params["due_at"])
    if found is None:
        return None
    status, terms, customer = found
    if status != "active" or not _is_charged_at(attempt, terms, due_at):
        return None
    of_event = Money(notification.params["amount"] or 0, notification.params["currency"] or "")
    amount = _preview(attempt, db, notification.about) or of_event
    if amount.minor <= 0:
        return None
    return Message({"renewal": Day(due_at), "amount": amount}, to=_known_address(attempt, db, customer))


def _load(attempt: Attempt, db: Session, key: str) -> tuple[str | None, Terms, str] | None:
    """(status, terms, customer) of a subscription, as Stripe has it now or else as it is stored.

    None if it is not known, or not ours.
    """
    found = refetch.fetch_current(attempt, db, stripe.fetch_subscription, key, SubscriptionObject)
    row = db.get(Subscription, key)
    if found is not None:
        items = sold_items(product_of(found.metadata), found.items.as_stored if found.items else None)
        customer = ref(found.customer) or found.customer_account or ""
        known = found.status, subscriptions.terms_in(found), customer
    elif row is not None:
        items, known = sold_items(row.product, row.items), (row.stripe_status, row.terms or {}, row.customer)
    else:
        return None
    metadata = found.metadata if found is not None else None, row.meta if row is not None else None
    return known if is_ours(attempt.settings, items or None, *metadata) else None


def _is_charged_at(attempt: Attempt, terms: Terms, at: int) -> bool:
    return at > attempt.now.timestamp() and is_charged(terms, at)


def _has_default_method(attempt: Attempt, db: Session, customer: str) -> bool:
    """Whether the customer has a payment method of their own; False if that cannot be known."""
    if not attempt.settings.stripe_api_key:
        return False
    try:
        with outside_transaction(db):
            found = stripe.fetch_customer(attempt, customer)
    except PermanentError:
        return False
    return bool(stripe_payments.default_method(found))


def _preview(attempt: Attempt, db: Session, subscription: str) -> Money | None:
    """What the next invoice will be over, with taxes and discounts; None if Stripe does not say."""
    if not attempt.settings.stripe_api_key:
        return None
    try:
        with outside_transaction(db):
            found = convert(stripe.preview_invoice(attempt, subscription), PreviewObject)
    except PermanentError:  # the key may not read invoices, or there is no next invoice
        return None
    return Money(found.amount_due, found.currency)


def _sum(terms: Terms) -> Money | None:
    minor, currency = terms.get("amount"), terms.get("currency")
    return Money(minor, currency) if minor is not None and currency else None


def _known_address(attempt: Attempt, db: Session, customer: str) -> Recipient:
    """The address on the customer's newest invoice, or else on the newest order."""
    of_customer = {"customer": customer, "account": account_of(attempt)}
    invoices = select(Invoice.email, Invoice.phone).filter_by(**of_customer).where(Invoice.email.is_not(None))
    orders = select(Order.email, Order.phone).filter_by(**of_customer).where(Order.email.is_not(None))
    newest_first = (invoices.order_by(Invoice.created.desc()), orders.order_by(Order.created.desc()))
    rows = [row for found in newest_first for row in db.execute(found.limit(1))]
    return Recipient(valid_email(rows[0].email), valid_phone(rows[0].phone)) if rows else Recipient()
