"""A new payment method of a customer pays what is open at once, instead of waiting for the next retry.

Stripe itself does not: it charges an open invoice by its own schedule, or never again after the last attempt.
"""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.billing import dunning
from tasks.connected_accounts import account_of
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, PaymentRetry, Subscription
from tasks.payloads import Id, Ref, Text, parse, ref, require


class Card(Struct):
    exp_month: Any = None
    exp_year: Any = None
    last4: Any = None


class PaymentMethod(Struct):
    """The fields that we use of https://docs.stripe.com/api/payment_methods/object."""

    id: Id | None = None
    customer: Ref = None
    customer_account: Id | None = None
    card: Card | None = None

    @property
    def version(self) -> str:
        """The method with its card's details: a card that the bank has renewed keeps its id."""
        if self.card is None:
            return str(self.id)
        return f"{self.id} {self.card.last4} {self.card.exp_year}-{self.card.exp_month}"


class MethodData(Struct):
    object: PaymentMethod


class MethodEvent(Struct):
    type: Text
    data: MethodData


class InvoiceSettings(Struct):
    default_payment_method: Ref = None


class CustomerObject(Struct):
    id: Id | None = None
    invoice_settings: InvoiceSettings | None = None
    default_source: Ref = None

    @property
    def method(self) -> str | None:
        """The default payment method, which invoices are charged to."""
        chosen = ref(self.invoice_settings.default_payment_method) if self.invoice_settings else None
        return chosen or ref(self.default_source)


class ChangedSettings(Struct):
    default_payment_method: Ref | UnsetType = UNSET


class Previous(Struct):
    """The former values of what has changed."""

    invoice_settings: ChangedSettings | None = None
    default_source: Ref | UnsetType = UNSET


class CustomerData(Struct):
    object: CustomerObject
    previous_attributes: Previous | None = None  # not in a thin event


class CustomerEvent(Struct):
    data: CustomerData


def customer_updated(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.updated: with a key, if there is a new default payment method, pay the customer's open invoices."""
    data = parse(attempt.event.body, CustomerEvent).data
    if data.object.method is None or not _has_new_default(data.previous_attributes):
        return []
    return _pay_open(attempt, db, require(data.object.id, "data.object.id"), data.object.method)


def payment_method_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """payment_method.attached, .automatically_updated: with a key, pay the customer's open invoices with it.

    Only if they would be charged to it: a method that is attached need not be the default.
    """
    event = parse(attempt.event.body, MethodEvent)
    method = event.data.object
    customer = ref(method.customer) or method.customer_account
    require(method.id, "data.object.id")
    if customer is None:  # it was detached meanwhile
        return []
    renewed = event.type == "payment_method.automatically_updated"
    return _pay_open(attempt, db, customer, method.version if renewed else str(method.id))


def _has_new_default(previous: Previous | None) -> bool:
    if previous is None:
        return True
    chosen = previous.invoice_settings
    return previous.default_source is not UNSET or (chosen is not None and chosen.default_payment_method is not UNSET)


def _pay_open(attempt: Attempt, db: Session, customer: str, method: str) -> list[FollowUp]:
    """Plan one payment with this method for each failed invoice of the customer that is still open."""
    if not attempt.settings.stripe_api_key:
        return []
    mine = (Invoice.customer == customer) & (Invoice.account == account_of(attempt))
    jobs: list[FollowUp] = []
    unpaid = select(Invoice).where(mine, Invoice.state == "open", ~Invoice.sent, dunning.FAILING).order_by(Invoice.id)
    for invoice in db.scalars(unpaid).all():
        row = db.get(Subscription, invoice.subscription) if invoice.subscription else None
        if dunning.select_failing(attempt.settings, db, [invoice], row) and not _is_tried(db, invoice, method):
            jobs += dunning.plan_retry(attempt, db, invoice, 0, method)
    return jobs


def _is_tried(db: Session, invoice: Invoice, method: str) -> bool:
    """Whether a payment with this method was made or is under way. One that was cancelled was not made."""
    same = select(PaymentRetry.number).filter_by(invoice=invoice.id, method=method)
    busy = select(PaymentRetry.number).filter_by(invoice=invoice.id, state="pending")
    return db.scalars(same.where(PaymentRetry.state != "cancelled").union(busy)).first() is not None
