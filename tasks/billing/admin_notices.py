"""Events of Stripe's that only a person can act on: one message each to the administrator."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.billing import charges
from tasks.billing.invoices import InvoiceObject
from tasks.handler import Attempt, FollowUp
from tasks.models import Subscription
from tasks.money import format_amount
from tasks.notifications.notify import notify_admin
from tasks.orders.stored_ownership import is_subscription_ours
from tasks.payloads import Id, Ref, StripeEvent, Text, parse, ref, require


class FraudWarning(Struct):
    """The fields that we use of https://docs.stripe.com/api/radar/early_fraud_warnings/object."""

    id: Id | None = None
    charge: Ref = None
    fraud_type: Text | None = None


def invoice_not_finalized(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.finalization_failed: nothing is billed while the subscription goes on."""
    invoice = parse(attempt.event.body, StripeEvent[InvoiceObject]).data.object
    row = db.get(Subscription, invoice.subscription_id) if invoice.subscription_id else None
    if not is_subscription_ours(attempt.settings, row, invoice.meta):
        return []
    error = invoice.last_finalization_error
    about = {
        "invoice": require(invoice.id, "data.object.id"),
        "customer": invoice.customer_id or "none",
        "subscription": invoice.subscription_id or "none",
        "reason": (error.code if error else None) or "not given",
    }
    return [notify_admin(db, attempt, "invoice_not_finalized", about=about["invoice"], **about)]


def fraud_warning(attempt: Attempt, db: Session) -> list[FollowUp]:
    """radar.early_fraud_warning.created: a refund now may save a dispute and its fee."""
    warning = parse(attempt.event.body, StripeEvent[FraudWarning]).data.object
    key, charge = require(warning.id, "data.object.id"), require(ref(warning.charge), "data.object.charge")
    about = {"warning": key, "charge": charge, "reason": warning.fraud_type or "not given"}
    amount = _amount_of(attempt, db, charge)
    return [notify_admin(db, attempt, "fraud_warning", about=key, amount=amount, **about)]


def _amount_of(attempt: Attempt, db: Session, charge: str) -> str:
    """The amount of a charge, with a key: the warning does not contain it."""
    found = charges.fetch_current(attempt, db, charge)
    if found is not None and found.amount is not None and found.currency:
        return format_amount(found.amount, found.currency)
    return "an unknown amount"
