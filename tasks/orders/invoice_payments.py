"""Which payment paid which invoice, so that a refund or dispute that names only its payment finds what it takes back.

Before API version 2025-03-31 (basil) the invoice and its payment name each other. Since then only a third object names
both. https://docs.stripe.com/api/invoice-payment/object
"""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.connected_accounts import account_of
from tasks.db.locking import insert_if_new
from tasks.handler import Attempt, FollowUp
from tasks.models import InvoicePayment
from tasks.orders import access
from tasks.payloads import Ref, StripeEvent, parse, ref, require


class Payment(Struct):
    payment_intent: Ref = None  # null if it was paid outside Stripe


class InvoicePaymentObject(Struct):
    """The fields that we use of an invoice payment."""

    invoice: Ref = None
    payment: Payment | None = None


def invoice_payment_paid(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice_payment.paid: record which payment paid the invoice, or a part of it."""
    found = parse(attempt.event.body, StripeEvent[InvoicePaymentObject]).data.object
    invoice = require(ref(found.invoice), "data.object.invoice")
    if not record(attempt, db, ref(found.payment.payment_intent) if found.payment else None, invoice):
        return []
    return access.sync_entitlements(db, attempt, invoice=invoice)


def record(attempt: Attempt, db: Session, payment_intent: str | None, invoice: str | None) -> bool:
    """Store that this payment paid this invoice, if both are known. Returns whether that is new."""
    if not payment_intent or not invoice:
        return False
    return insert_if_new(
        db, InvoicePayment, payment_intent=payment_intent, invoice=invoice, account=account_of(attempt)
    )


def invoice_of(db: Session, payment_intent: str | None) -> str | None:
    """The invoice that this payment paid; None if it paid none, or if that is not known."""
    if payment_intent is None:
        return None
    return db.scalar(select(InvoicePayment.invoice).filter_by(payment_intent=payment_intent))
