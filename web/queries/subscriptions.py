"""A page of the subscriptions whose payment failed, those that changed last first; for the API and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from tasks.models import Invoice, PaymentGrace, PaymentRetry, Subscription
from web.queries.documents import parse_row_cursor, row_cursor

IN_DUNNING = ("past_due", "unpaid", "suspended")
UNPAID = ("open", "uncollectible")  # one that was written off may be what suspended it


@dataclass(slots=True)
class OpenInvoice:
    """An unpaid invoice with the tries that were made and are planned, and its grace time if it has one."""

    invoice: Invoice
    retries: list[PaymentRetry] = field(default_factory=list)
    grace: PaymentGrace | None = None


@dataclass(frozen=True, slots=True)
class PastDueSubscription:
    """A subscription in dunning, and what is owed for it."""

    subscription: Subscription
    owes: Sequence[OpenInvoice]


def load_page(db: Session, given: Mapping[str, str], rows: int) -> tuple[Sequence[PastDueSubscription], str | None]:
    """So many `rows`, and where the next page begins, if there is one. Raises Refused for a strange cursor."""
    late = select(Subscription).where(Subscription.status.in_(IN_DUNNING))
    if cursor := given.get("cursor", ""):
        late = late.where(tuple_(Subscription.updated_at, Subscription.id) < tuple_(*parse_row_cursor(cursor)))
    late = late.order_by(Subscription.updated_at.desc(), Subscription.id.desc())
    found = db.scalars(late.limit(rows)).all()
    owing = _open_invoices(db, [row.id for row in found])
    older = row_cursor(found[-1].updated_at, found[-1].id) if len(found) == rows else None
    return [PastDueSubscription(row, owing.get(row.id, ())) for row in found], older


def _open_invoices(db: Session, subscriptions: list[str]) -> dict[str, list[OpenInvoice]]:
    """The unpaid invoices of each subscription, in three queries however many there are."""
    unpaid = select(Invoice).where(Invoice.subscription.in_(subscriptions), Invoice.state.in_(UNPAID))
    found = {invoice.id: OpenInvoice(invoice) for invoice in db.scalars(unpaid.order_by(Invoice.created))}
    tries = select(PaymentRetry).where(PaymentRetry.invoice.in_(found))
    for retry in db.scalars(tries.order_by(PaymentRetry.number)):
        found[retry.invoice].retries.append(retry)
    graces = select(PaymentGrace).where(PaymentGrace.invoice.in_(found))
    for grace in db.scalars(graces.order_by(PaymentGrace.number)):
        found[grace.invoice].grace = grace
    by_subscription: dict[str, list[OpenInvoice]] = {}
    for owing in found.values():
        by_subscription.setdefault(owing.invoice.subscription or "", []).append(owing)
    return by_subscription
