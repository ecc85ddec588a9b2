"""Who a customer is, and all that they have now: as the application, the API and the console show it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from tasks.models import Customer, Entitlement, Invoice, Order, Subscription

TIMES = ("until", "cancel_at", "grace_until")


def entitlements_in_force(db: Session, holder: str) -> Sequence[Entitlement]:
    """All entitlements of a holder that are in force."""
    rows = select(Entitlement).filter_by(holder=holder).where(Entitlement.revoked_at.is_(None))
    return db.scalars(rows.order_by(Entitlement.product, Entitlement.source)).all()


def serialize_access(rows: Sequence[Entitlement]) -> list[dict[str, Any]]:
    """Entitlements as sent to the application; times in ISO 8601, UTC."""
    return [
        {
            "entitlement": row.product,
            "source": row.source,
            "quantity": row.quantity,
            "past_due": row.past_due,
            **{name: iso_time(getattr(row, name)) for name in TIMES},
        }
        for row in rows
    ]


def describe_customer(db: Session, holder: Customer) -> dict[str, Any]:
    """Who it is, for the application: Stripe's id, the shop's reference, the address, and all metadata of purchases.

    The id of a guest is that of the order, because each order of a guest has a sequence and a list of its own. Of
    several orders the newest that has a value decides; of the metadata, those of subscriptions count least.
    """
    name = holder.id.removeprefix(f"{holder.account}/") if holder.account else holder.id
    of_account = (Order.account == holder.account, or_(Order.customer == name, Order.session_id == name))
    orders = db.scalars(select(Order).where(*of_account).order_by(Order.created, Order.session_id)).all()
    about = (Subscription.account == holder.account, Subscription.customer == name)
    subscriptions = db.scalars(select(Subscription).where(*about).order_by(Subscription.id)).all()
    metadata: dict[str, Any] = {}
    for found in (*(row.meta for row in subscriptions), *(order.meta for order in orders)):
        metadata |= found or {}
    emails = [order.email for order in orders if order.email] or _invoiced(db, holder.account, name)
    references = [order.client_reference for order in orders if order.client_reference]
    return {
        "id": name,
        "client_reference": references[-1] if references else None,
        "email": emails[-1] if emails else None,
        "metadata": metadata,
    }


def _invoiced(db: Session, account: str, customer: str) -> list[str]:
    """The address on the customer's newest invoice."""
    found = select(Invoice.email).filter_by(account=account, customer=customer).where(Invoice.email.is_not(None))
    return [str(email) for email in db.scalars(found.order_by(Invoice.created.desc()).limit(1))]


def iso_time(seconds: int | None) -> str | None:
    """Seconds since 1970 in ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds is not None else None
