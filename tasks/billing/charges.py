"""Charges, which refunds and disputes reverse: fetching them, and finding what they paid for."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.billing import invoices, refetch
from tasks.clients import stripe
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import Charge, Dispute, Order
from tasks.orders import access, invoice_payments
from tasks.payloads import Id, Int64, Ref, Text, ref

PaymentRefs = dict[str, str | None]  # ids by which a charge and its order are found


class ChargeObject(Struct):
    """The fields that we use of a charge. Since API version 2025-03-31 (basil) it has no `invoice`."""

    id: Id | None = None
    payment_intent: Ref = None
    invoice: Ref = None
    amount: Int64 | None = None
    amount_captured: Int64 | None = None
    amount_refunded: Int64 | None = None
    refunded: bool = False
    currency: Text = ""
    created: Int64 = 0

    @property
    def given_back(self) -> int | None:
        """What was refunded of what was captured. Stripe counts as refunded, too, what a capture left of the
        authorization: https://docs.stripe.com/api/charges/capture
        """
        if self.amount is None or self.amount_refunded is None:
            return None
        return max(self.amount_refunded - (self.amount - (self.amount_captured or self.amount)), 0)


def fetch_current(attempt: Attempt, db: Session, charge: str | None) -> ChargeObject | None:
    """The charge as Stripe has it now; None without an API key, or if Stripe does not know it. May commit."""
    return refetch.fetch_current(attempt, db, stripe.fetch_charge, charge, ChargeObject)


def resolve_payment_refs(attempt: Attempt, db: Session, charge: ChargeObject) -> PaymentRefs:
    """The ids that a charge shares with its order. With an API key, its invoice is fetched and recorded.

    It is not fetched for an order that was paid in the checkout itself: it has the payment intent. May commit, before
    it writes.
    """
    payment_intent, invoice = ref(charge.payment_intent), ref(charge.invoice)
    invoice = invoice or invoice_payments.invoice_of(db, payment_intent)
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
    except stripe.Refused:  # this key does not know it: use the ids of the event
        return known
    if not found:
        return known
    row = invoices.upsert_snapshot(attempt, db, invoices.snapshot_from_stripe(attempt, found))
    return known | {"invoice": row.id, "subscription": row.subscription}


def merge_known(row: Charge | Dispute, values: dict[str, Any]) -> None:
    """Store the values in the row; None leaves what is stored."""
    for name, value in values.items():
        if value is not None:
            setattr(row, name, value)


def payment_refs(db: Session, row: Charge | Dispute) -> PaymentRefs:
    """All ids known by now, from any event: those of a dispute, and those of its charge, if that is recorded."""
    key = row.id if isinstance(row, Charge) else row.charge
    refs: PaymentRefs = {"charge": key}
    access.lock_entitlements(db, charge=key)  # a concurrent transaction may be recording the other of the two
    charge = row if isinstance(row, Charge) else db.get(Charge, key, populate_existing=True)
    for name in ("payment_intent", "invoice", "subscription"):
        refs[name] = getattr(row, name) or (getattr(charge, name) if charge is not None else None)
    return refs
