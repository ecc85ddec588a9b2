"""What was paid for an order or a subscription, and what was taken back of it, from the stored facts.

A refund or dispute is found by the ids that it shares with its order or invoice. A dispute may name only its charge; a
charge that was refunded is recorded with its invoice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, bindparam, exists, func, select
from sqlalchemy.orm import Session

from tasks.models import Charge, Dispute, Invoice, InvoicePayment, Order, PaymentIntent
from tasks.orders.access_rules import LOST_DISPUTE, OPEN_DISPUTE, Payment

ALL = 2**63  # of a dispute that names no amount: more than any payment


# Statements that nearly every event needs are built once. They take the ids that a refund or dispute may share.
INVOICE_IDS: BindParameter[Any] = bindparam("invoices", expanding=True)
INTENT_IDS: BindParameter[Any] = bindparam("intents", expanding=True)


def _shares(row: type[Charge] | type[Dispute]) -> ColumnElement[bool]:
    """Selects the charges or disputes with one of these ids."""
    of_subscription = row.subscription == bindparam("subscription")
    return of_subscription | row.invoice.in_(INVOICE_IDS) | row.payment_intent.in_(INTENT_IDS)


def _reversed(row: type[Charge] | type[Dispute]) -> ColumnElement[bool]:
    """Whether there is one. Apart from each other, because Postgres would read the whole table for both at once."""
    paid = (row.payment_intent == InvoicePayment.payment_intent) & InvoicePayment.invoice.in_(INVOICE_IDS)
    return exists().where(_shares(row)) | exists().where(paid)


REVERSED = select(_reversed(Charge) | _reversed(Dispute))
CHARGES = select(Charge).where(_shares(Charge))
DISPUTES = (
    select(Dispute, Charge)
    .outerjoin(Charge, Charge.id == Dispute.charge)
    .where(_shares(Dispute) | Dispute.charge.in_(bindparam("charges", expanding=True)))
)
PAYMENTS = select(InvoicePayment.payment_intent, InvoicePayment.invoice).where(InvoicePayment.invoice.in_(INVOICE_IDS))
LINES = select(Invoice.id, Invoice.lines).where(Invoice.id.in_(INVOICE_IDS), Invoice.lines_complete)


@dataclass(frozen=True, slots=True)
class PaidInvoice:
    """The columns of an invoice that are needed for every decision; its lines are loaded only if they matter."""

    id: str
    created: int
    state: str
    renews: bool
    amount: int
    currency: str
    period_end: int | None
    renewal_told: bool
    billing_reason: str | None


@dataclass(slots=True)
class _Reversal:
    """What was taken back of the payment for one invoice, or for one order."""

    invoice: str | None
    created: int = 0
    charges: dict[str, int] = field(default_factory=dict)  # amount by charge
    currency: str = ""
    refunded: int = 0
    lost: int = 0
    disputed: int = 0

    def payment(self, created: int, amount: int, currency: str, buys: frozenset[str] | None = None) -> Payment:
        """`amount` is all that was paid; if it is unknown or in another currency, the charges are all."""
        same = not self.currency or currency.lower() == self.currency.lower()
        paid = amount if amount > 0 and same else sum(self.charges.values())
        return Payment(created, paid, buys, self.refunded, self.lost, self.disputed)


# Of the table, not the class: that costs half as much, and this is asked of every subscription.
INVOICE = Invoice.__table__.c
INVOICES = (
    select(
        INVOICE.id,
        INVOICE.created,
        INVOICE.state,
        INVOICE.renews,
        INVOICE.amount_due,
        INVOICE.currency,
        INVOICE.period_end,
        INVOICE.renewal_told,
        INVOICE.billing_reason,
    )
    .where(INVOICE.subscription == bindparam("subscription"))
    .order_by(INVOICE.created, INVOICE.id)
)


def invoices_of(db: Session, subscription: str) -> list[PaidInvoice]:
    """All known invoices of a subscription, the oldest first."""
    return [PaidInvoice(*row) for row in db.execute(INVOICES, {"subscription": subscription})]


LAST_RENEWAL = select(func.max(Invoice.created)).where(
    Invoice.subscription == bindparam("subscription"), Invoice.state == "paid", Invoice.renews
)


def last_renewal_at(db: Session, subscription: str) -> int:
    """When the newest paid renewal invoice of this subscription was created (seconds since 1970); 0 if there is none.

    Compared by invoice date, because an old invoice may be paid late. Prorations (a plan change) are not renewals.
    """
    return db.scalar(LAST_RENEWAL, {"subscription": subscription}) or 0


def payment_of_order(db: Session, order: Order) -> Payment | None:
    """What was paid for an order; None if nothing was taken back of it."""
    invoices = [order.invoice] if order.invoice else []
    intents = [order.payment_intent] if order.payment_intent else []
    found = _reversals(db, invoices, intents, None) if _may_be_reversed(db, None, invoices, intents) else []
    if not found:
        return None
    whole = _Reversal(order.invoice)
    for one in found:
        _merge(whole, one)
    amount, currency = order.amount_total, order.currency
    intent = db.get(PaymentIntent, order.payment_intent) if order.payment_intent else None
    if intent is not None and intent.currency == currency:
        amount = intent.amount  # less, if only a part of it was captured
    if order.invoice and (invoice := db.get(Invoice, order.invoice)) is not None:
        amount, currency = invoice.amount_due, invoice.currency
    return whole.payment(order.created, amount, currency)


def payments_of_subscription(
    db: Session, subscription: str, invoices: Sequence[PaidInvoice], orders: Sequence[Order]
) -> list[Payment]:
    """What was paid for the periods of a subscription; [] if nothing was taken back.

    An invoice that is not known stands for all items, and has the date of its charge.
    """
    known = {one.id: one for one in invoices}
    named = {*known, *(order.invoice for order in orders if order.invoice)}
    if not _may_be_reversed(db, subscription, named, [order.payment_intent for order in orders]):
        return []
    by_intent = {order.payment_intent: order.invoice for order in orders if order.payment_intent}
    by_intent |= _invoice_by_intent(db, named)
    reversals: dict[str, _Reversal] = {}
    for number, one in enumerate(_reversals(db, named, by_intent, subscription, by_intent)):
        key = one.invoice or f"charge {number}"
        _merge(reversals.setdefault(key, _Reversal(one.invoice)), one)
    if not reversals:
        return []
    buys = _what_they_buy(db, invoices)
    paid = [
        reversals.pop(one.id, _Reversal(one.id)).payment(one.created, one.amount, one.currency, buys.get(one.id))
        for one in invoices
        if (one.renews or one.id in buys) and (one.state == "paid" or one.id in reversals)
    ]
    unknown = [one for one in reversals.values() if one.invoice not in known]
    return [*paid, *(one.payment(one.created, 0, "") for one in unknown)]


def _may_be_reversed(
    db: Session, subscription: str | None, invoices: Iterable[str], intents: Iterable[str | None]
) -> bool:
    """Whether anything was refunded or disputed of a purchase. Mostly nothing was, and one query says so."""
    ids = {"subscription": subscription, "invoices": list(invoices), "intents": [one for one in intents if one]}
    return bool(db.scalar(REVERSED, ids))


def _invoice_by_intent(db: Session, invoices: Iterable[str]) -> dict[str, str | None]:
    rows = db.execute(PAYMENTS, {"invoices": list(invoices)})
    return {row.payment_intent: row.invoice for row in rows}


def _what_they_buy(db: Session, invoices: Sequence[PaidInvoice]) -> dict[str, frozenset[str]]:
    """By invoice: the products and prices that it pays for. Without those that buy nothing, or are not known whole.

    One that renews buys those of which it starts a period; another one, as of a change of plan, those that it adds.
    """
    renewing = {one.id: one.renews for one in invoices}
    rows = db.execute(LINES, {"invoices": list(renewing)})
    found = {key: _started(lines or ()) if renewing[key] else _added(lines or ()) for key, lines in rows}
    return {key: names for key, names in found.items() if names}


def _started(lines: Sequence[dict[str, Any]]) -> frozenset[str]:
    return _names(line for line in lines if line["starts_period"])


def _added(lines: Sequence[dict[str, Any]]) -> frozenset[str]:
    """What a proration bills, unless the same invoice credits it: then only its quantity or its period has changed."""
    plans = [line for line in lines if not line["once"]]
    return _names(line for line in plans if line["amount"] > 0) - _names(line for line in plans if line["amount"] < 0)


def _names(lines: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(line[name] for line in lines for name in ("price", "product") if line[name])


def _reversals(
    db: Session,
    invoices: Iterable[str],
    intents: Iterable[str],
    subscription: str | None,
    invoice_by_intent: dict[str, str | None] | None = None,
) -> list[_Reversal]:
    """The refunded charges and the disputes with one of these ids, by charge."""
    ids = {"invoices": list(invoices), "intents": list(intents), "subscription": subscription}
    found: dict[str, _Reversal] = {}

    def reversal(charge: str, row: Charge | Dispute, created: int) -> _Reversal:
        one = found.setdefault(charge, _Reversal(None, created, currency=row.currency))
        one.invoice = one.invoice or row.invoice or (invoice_by_intent or {}).get(row.payment_intent or "")
        return one

    for charge in db.scalars(CHARGES, ids):
        one = reversal(charge.id, charge, charge.created)
        one.charges[charge.id] = charge.amount
        one.refunded = charge.amount if charge.refunded else charge.amount_refunded
    for dispute, charge in db.execute(DISPUTES, {**ids, "charges": list(found)}):
        one = reversal(dispute.charge, dispute, dispute.charge_created)
        if charge is not None:
            one.invoice, one.currency = one.invoice or charge.invoice, one.currency or charge.currency
        one.charges.setdefault(dispute.charge, charge.amount if charge else dispute.amount)
        amount = dispute.amount or ALL
        if dispute.status in LOST_DISPUTE:
            one.lost += amount
        elif dispute.status in OPEN_DISPUTE:
            one.disputed += amount
    return list(found.values())


def _merge(whole: _Reversal, part: _Reversal) -> None:
    whole.created = max(whole.created, part.created)
    whole.charges |= part.charges
    whole.currency = whole.currency or part.currency
    whole.refunded += part.refunded
    whole.lost += part.lost
    whole.disputed += part.disputed
