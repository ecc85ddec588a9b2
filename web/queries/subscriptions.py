"""A page of the subscriptions in dunning, the most recently changed first; for the API and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import Session

from tasks.models import Invoice, PaymentGrace, PaymentRetry, Subscription
from web.queries.filters import parse_row_cursor, row_cursor

IN_DUNNING = ("past_due", "unpaid", "suspended")
UNPAID = ("open", "uncollectible")  # an invoice that was written off may be what suspended the subscription


@dataclass(slots=True)
class OpenInvoice:
    """An unpaid invoice with its past and planned payment retries, and its grace period if it has one."""

    invoice: Invoice
    retries: list[PaymentRetry] = field(default_factory=list)
    grace: PaymentGrace | None = None


@dataclass(frozen=True, slots=True)
class PastDueSubscription:
    """A subscription in dunning with its unpaid invoices, the oldest first."""

    subscription: Subscription
    open_invoices: Sequence[OpenInvoice]


def load_page(db: Session, params: Mapping[str, str], limit: int) -> tuple[Sequence[PastDueSubscription], str | None]:
    """At most `limit` subscriptions and the cursor of the next page, or None if this is the last page.

    Raises HttpError if the `cursor` in `params` is invalid.
    """
    query = select(Subscription).where(Subscription.status.in_(IN_DUNNING))
    if cursor := params.get("cursor", ""):
        query = query.where(tuple_(Subscription.updated_at, Subscription.id) < tuple_(*parse_row_cursor(cursor)))
    query = query.order_by(Subscription.updated_at.desc(), Subscription.id.desc())
    rows = db.scalars(query.limit(limit)).all()
    invoices = _by_subscription(load_open_invoices(db, Invoice.subscription.in_([row.id for row in rows])))
    older = row_cursor(rows[-1].updated_at, rows[-1].id) if len(rows) == limit else None
    return [PastDueSubscription(row, invoices.get(row.id, ())) for row in rows], older


def load_open_invoices(db: Session, selected: ColumnElement[bool]) -> list[OpenInvoice]:
    """The unpaid invoices among the selected ones, the oldest first, loaded in three queries."""
    unpaid = select(Invoice).where(selected, Invoice.state.in_(UNPAID))
    found = {invoice.id: OpenInvoice(invoice) for invoice in db.scalars(unpaid.order_by(Invoice.created))}
    retries = select(PaymentRetry).where(PaymentRetry.invoice.in_(found))
    for retry in db.scalars(retries.order_by(PaymentRetry.number)):
        found[retry.invoice].retries.append(retry)
    graces = select(PaymentGrace).where(PaymentGrace.invoice.in_(found))
    for grace in db.scalars(graces.order_by(PaymentGrace.number)):
        found[grace.invoice].grace = grace
    return list(found.values())


def _by_subscription(invoices: Sequence[OpenInvoice]) -> dict[str, list[OpenInvoice]]:
    found: dict[str, list[OpenInvoice]] = {}
    for invoice in invoices:
        found.setdefault(invoice.invoice.subscription or "", []).append(invoice)
    return found
