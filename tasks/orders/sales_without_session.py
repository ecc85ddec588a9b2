"""Sales that no checkout session began: a payment with Elements, or an invoice of one-off items.

Each becomes an order under the id of its payment intent or invoice, decided a minute after it was paid: the event of a
session that names it may come later, and with a key Stripe is asked for one. A session that comes even later takes its
place (sources.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from tasks.clients import stripe
from tasks.connected_accounts import account_of
from tasks.db.locking import insert_if_new, select_for_update, upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, InvoicePayment, Order, PaymentIntent
from tasks.orders import access, fulfilment, invoice_payments, product_grants
from tasks.ownership import is_ours
from tasks.payloads import (
    Id,
    Int64,
    Ref,
    StripeEvent,
    Text,
    UnixTime,
    metadata_of,
    parse,
    product_of,
    ref,
    require,
    short,
)
from tasks.routes import RECORD_SALE

DELAY_SECONDS = 60


class PaymentIntentObject(Struct):
    """The fields that we use of a payment intent. Since API version 2025-03-31 (basil) it has no `invoice`."""

    id: Id | None = None
    customer: Ref = None
    customer_account: Id | None = None  # instead of `customer`, if that is an account (Accounts v2)
    invoice: Ref = None
    amount_received: Int64 | None = None
    amount: Int64 = 0
    currency: Text = ""
    receipt_email: Text | None = None
    metadata: dict[str, Any] | None = None
    created: UnixTime = 0


def payment_succeeded(attempt: Attempt, db: Session) -> list[FollowUp]:
    """payment_intent.succeeded: the order that it pays is paid; without one, `metadata.product` makes it a sale."""
    found = parse(attempt.event.body, StripeEvent[PaymentIntentObject]).data.object
    key = require(found.id, "data.object.id")
    values = {
        "customer": ref(found.customer) or found.customer_account,
        "invoice": ref(found.invoice),
        "email": short(found.receipt_email),
        "amount": found.amount if found.amount_received is None else found.amount_received,
        "currency": found.currency,
        "product": product_of(found.metadata),
        "meta": metadata_of(found.metadata) or None,
        "created": found.created,
    }
    row, _ = upsert_locked(db, PaymentIntent, id=key, account=account_of(attempt), **values)
    invoice_payments.record(attempt, db, key, row.invoice)
    jobs = access.sync_entitlements(db, attempt, payment_intent=key, invoice=row.invoice)
    if row.product is None or row.invoice or access.order_exists(db, Order.payment_intent, key):
        return jobs
    return [*jobs, _record_later(attempt, key)]


def enqueue_sale(attempt: Attempt, db: Session, invoice: Invoice) -> list[FollowUp]:
    """The job that records a paid invoice without subscription as a sale, if its one-off lines name products."""
    if invoice.state != "paid" or invoice.subscription or not sold_by(invoice):
        return []
    return [] if access.order_exists(db, Order.invoice, invoice.id) else [_record_later(attempt, invoice.id)]


def record_sale(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Record a sale as an order of its own, unless a session names it by now, here or at Stripe; fulfil it."""
    key = str(attempt.args["sale"])
    values = _order_values(db, key)
    if values is None or not _is_ours(attempt, values):
        return []
    intent = values["payment_intent"]
    if _has_order(db, account_of(attempt), values) or (intent and _has_session(attempt, db, intent)):
        return []
    access.lock_entitlements(
        db, session=key, customer=values["customer"], invoice=values["invoice"], payment_intent=intent
    )
    if _has_order(db, account_of(attempt), values):  # recorded during the call
        return []
    stamp = {"state": "awaiting_payment", "created_at": attempt.now, "account": account_of(attempt)}
    insert_if_new(db, Order, session_id=key, **values, **stamp)
    order = select_for_update(db, Order, key)
    return fulfilment.fulfil(attempt, db, order) if order is not None and order.state != "fulfilled" else []


def sold_by(invoice: Invoice) -> list[dict[str, Any]]:
    """The items of an invoice's one-off lines that name products."""
    names = ("price", "product", "quantity")
    return [
        {**{name: line[name] for name in names}, "renews": False, "description": line["description"]}
        for line in invoice.lines or ()
        if line["once"] and line["product"]
    ]


def _record_later(attempt: Attempt, sale: str) -> FollowUp:
    return FollowUp(f"sales.record.{sale}", RECORD_SALE, {"sale": sale}, delay_seconds=DELAY_SECONDS)


def _order_values(db: Session, key: str) -> dict[str, Any] | None:
    """The columns of the order of a payment intent or invoice; None if it is not known."""
    intent = db.get(PaymentIntent, key)
    if intent is not None:
        about = {
            name: getattr(intent, name) for name in ("customer", "email", "currency", "product", "meta", "created")
        }
        return {**about, "payment_intent": key, "invoice": None, "amount_total": intent.amount, "bought": []}
    invoice = db.get(Invoice, key)
    if invoice is None:
        return None
    about = {name: getattr(invoice, name) for name in ("customer", "email", "phone", "currency", "meta", "created")}
    return {
        **about,
        "payment_intent": None,
        "invoice": key,
        "amount_total": invoice.amount_due,
        "product": None,
        "bought": sold_by(invoice),
    }


def _is_ours(attempt: Attempt, values: Mapping[str, Any]) -> bool:
    product = values["product"]
    items = [product_grants.named_item(product)] if product else values["bought"]
    return is_ours(attempt.settings, items, values["meta"])


def _has_order(db: Session, account: str, values: dict[str, Any]) -> bool:
    """Whether an order has its payment or its invoice; also one that names only the payment of that invoice."""
    same = [getattr(Order, name) == values[name] for name in ("payment_intent", "invoice") if values[name]]
    if values["invoice"]:
        paid_by = select(InvoicePayment.payment_intent).filter_by(invoice=values["invoice"])
        same.append(Order.payment_intent.in_(paid_by))
    return db.scalar(select(Order.session_id).where(Order.account == account, or_(*same)).limit(1)) is not None


def _has_session(attempt: Attempt, db: Session, intent: str) -> bool:
    """Whether Stripe knows a checkout session of this payment, or an invoice that it paid; False without an API key."""
    if not attempt.settings.stripe_api_key:
        return False
    try:
        with outside_transaction(db):
            return bool(stripe.list_sessions(attempt, intent) or stripe.find_invoice(attempt, intent, None))
    except stripe.Refused:
        return False
