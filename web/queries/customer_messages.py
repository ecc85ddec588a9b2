"""The messages about a customer: webhooks to the application, and notifications; the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from tasks.models import AppMessage, Invoice, Notification
from web.queries.access import CustomerAccess


@dataclass(frozen=True, slots=True)
class Message:
    """`state`: that of a notification; of a webhook its number, because its job has the state."""

    at: datetime
    to: str
    what: str
    state: str
    about: str


def load(db: Session, found: CustomerAccess, limit: int) -> Sequence[Message]:
    """At most `limit` of each kind."""
    webhooks = select(AppMessage).filter_by(customer=found.row.id).order_by(AppMessage.created_at.desc()).limit(limit)
    orders = [order.session_id for order in found.orders]
    about = or_(Notification.customer == _name(found), Notification.about.in_(orders))
    mails = select(Notification).where(about).order_by(Notification.created_at.desc()).limit(limit)
    messages = [
        *(
            Message(row.created_at, "application", row.type, f"number {row.data['sequence']}", _subject(row))
            for row in db.scalars(webhooks)
            if "sequence" in row.data
        ),
        *(
            Message(row.sent_at or row.created_at, row.audience, row.kind.replace("_", " "), row.state, row.about)
            for row in db.scalars(mails)
        ),
    ]
    return sorted(messages, key=lambda one: (one.at, one.state), reverse=True)


def invoices_of(found: CustomerAccess) -> ColumnElement[bool]:
    return (Invoice.customer == _name(found)) & (Invoice.account == found.row.account)


def _name(found: CustomerAccess) -> str:
    """The customer's id without the account."""
    return found.row.id.removeprefix(f"{found.row.account}/") if found.row.account else found.row.id


def _subject(row: AppMessage) -> str:
    """The order or subscription, or what was granted or revoked, and why."""
    for name in ("order", "subscription"):
        if name in row.data:
            return str(row.data[name]["id"])
    names = ", ".join(row.data.get("entitlements", ()))
    return f"{names}: {row.data['reason']}" if "reason" in row.data else names
