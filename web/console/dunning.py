"""Subscriptions whose payment failed: what is owed, when it is tried again, and when access ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Blueprint, render_template, request
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from tasks.models import Invoice, PaymentGrace, PaymentRetry, Subscription
from web.documents import cursor_behind, place

ROWS = 100
IN_DUNNING = ("past_due", "unpaid", "suspended")


@dataclass(slots=True)
class Owing:
    """An unpaid invoice with the tries that were made and are planned, and its grace time if it has one."""

    invoice: Invoice
    retries: list[PaymentRetry] = field(default_factory=list)
    grace: PaymentGrace | None = None


def register(pages: Blueprint, sessions: Callable[[], Session]) -> None:
    """/console/subscriptions"""

    @pages.get("/subscriptions")
    def subscriptions() -> str:
        late = select(Subscription).where(Subscription.status.in_(IN_DUNNING))
        if cursor := request.args.get("cursor", ""):
            late = late.where(tuple_(Subscription.updated_at, Subscription.id) < tuple_(*place(cursor)))
        late = late.order_by(Subscription.updated_at.desc(), Subscription.id.desc())
        with sessions() as db:
            rows = db.scalars(late.limit(ROWS)).all()
            owing = _owing(db, [row.id for row in rows])
        older = cursor_behind(rows[-1].updated_at, rows[-1].id) if len(rows) == ROWS else None
        return render_template("subscriptions.html", subscriptions=rows, owing=owing, cursor=older)


def _owing(db: Session, subscriptions: list[str]) -> dict[str, list[Owing]]:
    """The unpaid invoices of each subscription, in four queries however many there are."""
    states = ("open", "uncollectible")  # one that was written off may be what suspended it
    unpaid = select(Invoice).where(Invoice.subscription.in_(subscriptions), Invoice.state.in_(states))
    found = {invoice.id: Owing(invoice) for invoice in db.scalars(unpaid.order_by(Invoice.created))}
    tries = select(PaymentRetry).where(PaymentRetry.invoice.in_(found))
    for retry in db.scalars(tries.order_by(PaymentRetry.number)):
        found[retry.invoice].retries.append(retry)
    graces = select(PaymentGrace).where(PaymentGrace.invoice.in_(found))
    for grace in db.scalars(graces.order_by(PaymentGrace.number)):
        found[grace.invoice].grace = grace
    by_subscription: dict[str, list[Owing]] = {}
    for owing in found.values():
        by_subscription.setdefault(owing.invoice.subscription or "", []).append(owing)
    return by_subscription
