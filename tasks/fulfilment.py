"""What a paid checkout gives: an order, access to products, a receipt."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field
from sqlalchemy.orm import Session

from tasks import access
from tasks.handling import Attempt, FollowUp
from tasks.models import Entitlement, Order
from tasks.money import amount_text
from tasks.notifications import notify_customer
from tasks.payloads import Id, Ref, Text, Whole, need, read, ref
from tasks.rows import insert_if_new, locked

PAID = frozenset({"paid", "no_payment_required"})


class CustomerDetails(Struct):
    email: Text | None = None
    phone: Text | None = None


class Price(Struct):
    product: Ref = None


class LineItem(Struct):
    price: Price | None = None


class LineItems(Struct):
    data: list[LineItem] = field(default_factory=list)


class Metadata(Struct):
    product: Id | None = None


class CheckoutSession(Struct):
    """What we use of Stripe's checkout session."""

    id: Id | None = None
    payment_status: Text | None = None
    customer: Ref = None
    client_reference_id: Id | None = None
    subscription: Ref = None
    amount_total: Whole | None = None
    currency: Text | None = None
    customer_details: CustomerDetails | None = None
    customer_email: Text | None = None
    metadata: Metadata | None = None
    line_items: LineItems | None = None

    @property
    def email(self) -> str | None:
        return (self.customer_details.email if self.customer_details else None) or self.customer_email

    @property
    def phone(self) -> str | None:
        return self.customer_details.phone if self.customer_details else None

    @property
    def products(self) -> list[str]:
        """What was bought: as the session's metadata say, or its line items where they came along."""
        if self.metadata and self.metadata.product:
            return [self.metadata.product]
        items = self.line_items.data if self.line_items else []
        found = {ref(item.price.product) for item in items if item.price} - {None, ""}
        return sorted(product for product in found if product) or ["default"]


class SessionData(Struct):
    object: CheckoutSession


class SessionEvent(Struct):
    data: SessionData


def checkout_completed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """checkout.session.completed: the order, once per session; access and receipt only when it is paid."""
    session = read(attempt.event.body, SessionEvent).data.object
    paid = need(session.payment_status, "data.object.payment_status") in PAID
    values = _order(attempt, session)
    access.hold(db, session=values["session_id"], **{name: values[name] for name in ("customer", "subscription")})
    insert_if_new(db, Order, **values)
    order = locked(db, Order, values["session_id"])
    if order is None or order.state == "fulfilled" or not paid:
        return []
    order.state, order.fulfilled_at = "fulfilled", attempt.now
    for product in session.products:
        _grant(attempt, db, order, product)
    return [_receipt(attempt, db, session, order), *access.follow(db, attempt, session=order.session_id)]


def _order(attempt: Attempt, session: CheckoutSession) -> dict[str, Any]:
    return {
        "session_id": need(session.id, "data.object.id"),
        "state": "awaiting_payment",
        "customer": ref(session.customer),
        "client_reference": session.client_reference_id,
        "subscription": ref(session.subscription),
        "amount_total": session.amount_total or 0,  # null where nothing is charged
        "currency": session.currency or "",
        "created_at": attempt.now,
    }


def _grant(attempt: Attempt, db: Session, order: Order, product: str) -> None:
    """An entitlement that is not in force before access.follow says so."""
    insert_if_new(
        db,
        Entitlement,
        session_id=order.session_id,
        product=product,
        customer=order.customer,
        client_reference=order.client_reference,
        subscription=order.subscription,
        granted_at=attempt.now,
        revoked_at=attempt.now,
    )


def _receipt(attempt: Attempt, db: Session, session: CheckoutSession, order: Order) -> FollowUp:
    return notify_customer(
        db,
        attempt,
        "receipt",
        session.email,
        phone=session.phone,
        order=order.session_id,
        products=", ".join(session.products),
        amount=amount_text(order.amount_total, order.currency),
    )
