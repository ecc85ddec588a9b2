"""Failures to collect an invoice: one row per failure, whatever the ids of the events that report it.

Stripe may send two events, with two ids, for one change: https://docs.stripe.com/webhooks#handle-duplicate-events
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, exists, func, select
from sqlalchemy.orm import Session

from tasks.billing.invoices import InvoiceObject
from tasks.connected_accounts import account_of
from tasks.db.locking import insert_if_new
from tasks.handler import Attempt
from tasks.models import Invoice, PaymentFailure
from tasks.payloads import require

OVERDUE = "overdue"  # the kind of a sent invoice without any attempt to pay it by its due date
HAS_FAILED = exists().where(PaymentFailure.invoice == Invoice.id)
LAST_FAILURE = select(func.max(PaymentFailure.created)).where(PaymentFailure.invoice == bindparam("invoice"))


def record(
    attempt: Attempt, db: Session, kind: str, invoice: InvoiceObject, *, created: int, code: str | None = None
) -> None:
    """Record a failure that an event reports. `code` is the bank's decline code, if it is known.

    `created` is the time of the event (seconds since 1970). Of several events the newest one's values are kept.
    """
    values = _values(attempt, kind, invoice, created, code)
    if insert_if_new(db, PaymentFailure, **values):
        return
    same = select(PaymentFailure).filter_by(invoice=invoice.id, kind=kind, attempt_count=values["attempt_count"])
    known = db.scalars(same.with_for_update()).first()
    if known is not None and (created, attempt.event.id) > (known.created, known.event_id):
        for name, value in values.items():
            setattr(known, name, value)
        db.flush()


def last_failure_at(db: Session, invoice: str) -> int:
    """When the newest failure of this invoice was reported (seconds since 1970, Stripe's clock); 0 if there is none."""
    return db.scalar(LAST_FAILURE, {"invoice": invoice}) or 0


def _values(attempt: Attempt, kind: str, invoice: InvoiceObject, created: int, code: str | None) -> dict[str, Any]:
    return {
        "event_id": attempt.event.id,
        "account": account_of(attempt),
        "kind": kind,
        "invoice": invoice.id,
        "customer": invoice.customer_id,
        "subscription": invoice.subscription_id,
        "amount_due": require(invoice.amount_due, "data.object.amount_due"),
        "currency": invoice.currency,
        "attempt_count": 0 if kind == OVERDUE else invoice.attempt_count,
        "decline_code": code,
        "hosted_invoice_url": invoice.hosted_invoice_url,
        "created": created,
        "recorded_at": attempt.now,
    }
