"""What a refund and a dispute have in common: the charge that they take back, and what it had paid for."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.billing import refetch
from tasks.clients import stripe
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import Charge, Dispute, Order
from tasks.orders import access
from tasks.payloads import Id, Int64, Ref, Text, ref

PaymentRefs = dict[str, str | None]  # by which a charge and its order are found


class ChargeObject(Struct):
    """What we use of Stripe's charge. API versions since 2025-03-31 (`basil`) do not name its `invoice`."""

    id: Id | None = None
    payment_intent: Ref = None
    invoice: Ref = None
    amount: Int64 | None = None
    amount_refunded: Int64 | None = None
    refunded: bool = False
    currency: Text = ""
    created: Int64 = 0


def fetch_current(attempt: Attempt, db: Session, charge: str | None) -> ChargeObject | None:
    """The charge as it is at Stripe now; None without a key, or where Stripe does not know it. May commit."""
    return refetch.fetch_current(attempt, db, stripe.fetch_charge, charge, ChargeObject)


def resolve_payment_refs(attempt: Attempt, db: Session, charge: ChargeObject) -> PaymentRefs:
    """What a charge and its order can have in common: with an API key, what the charge does not name is asked for.

    An order that was paid at the checkout itself knows the payment intent; only invoices are worth a question.
    May commit.
    """
    payment_intent, invoice = ref(charge.payment_intent), ref(charge.invoice)
    known: PaymentRefs = {"payment_intent": payment_intent, "invoice": invoice, "subscription": None}
    if (
        not attempt.settings.stripe_api_key
        or not (payment_intent or invoice)
        or access.order_exists(db, Order.payment_intent, payment_intent)
    ):
        return known
    try:
        with outside_transaction(db):
            found = stripe.find_invoice(attempt, payment_intent, invoice)
    except stripe.Refused:  # not known to this key: then what the event says is all there is
        return known
    return known | {"invoice": found.get("id", invoice), "subscription": stripe.subscription_of(found)}


def merge_known(row: Charge | Dispute, values: dict[str, Any]) -> None:
    """What is known into the row; what is not (None) leaves there what was known before."""
    for name, value in values.items():
        if value is not None:
            setattr(row, name, value)


def payment_refs(row: Charge | Dispute) -> PaymentRefs:
    """All the names that are known by now, whichever event told them."""
    return {"payment_intent": row.payment_intent, "invoice": row.invoice, "subscription": row.subscription}
