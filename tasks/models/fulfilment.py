"""What was bought, and who may use it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Order(Base):
    """What one checkout session bought: one row per session, however many events tell of it.

    A subscription that no session began has an order by its own id (tasks/orders/direct_subscriptions.py).
    """

    __tablename__ = "orders"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]  # expired | awaiting_payment | payment_failed | fulfilled: it only ever moves to the right
    customer: Mapped[str | None] = mapped_column(index=True)
    client_reference: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    amount_total: Mapped[int]
    currency: Mapped[str]
    bought: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)  # tasks/orders/entitlements.py
    access_changes: Mapped[int] = mapped_column(default=0)  # how often access was granted or revoked
    created_at: Mapped[datetime]
    fulfilled_at: Mapped[datetime | None]


class Entitlement(Base):
    """Somebody may use a product while `revoked_at` is empty, which tasks/orders/access.py alone decides."""

    __tablename__ = "entitlements"
    __table_args__ = (UniqueConstraint("session_id", "product"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("orders.session_id"))
    product: Mapped[str]
    customer: Mapped[str | None] = mapped_column(index=True)
    client_reference: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    granted_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Charge(Base):
    """What was refunded of one charge. It may be known before the order that it paid for."""

    __tablename__ = "charges"

    id: Mapped[str] = mapped_column(primary_key=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    amount: Mapped[int]
    amount_refunded: Mapped[int]
    refunded: Mapped[bool]  # wholly
    currency: Mapped[str]
    created: Mapped[int]  # Stripe's clock, seconds since 1970
    seen_created: Mapped[int]  # the watermark is (seen_created, amount_refunded)
    updated_at: Mapped[datetime]


class Dispute(Base):
    """A customer's bank takes a payment back, or asks about it. It may be known before the order."""

    __tablename__ = "disputes"

    id: Mapped[str] = mapped_column(primary_key=True)
    charge: Mapped[str] = mapped_column(index=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    amount: Mapped[int]
    currency: Mapped[str]
    reason: Mapped[str]
    status: Mapped[str]  # Stripe's word
    charge_created: Mapped[int]  # by Stripe's clock; the dispute's own time where the charge's is not known
    seen_created: Mapped[int]
    seen_event: Mapped[str]
    updated_at: Mapped[datetime]


class DeletedCustomer(Base):
    """A customer whom somebody deleted at Stripe, which nobody can undo."""

    __tablename__ = "deleted_customers"

    id: Mapped[str] = mapped_column(primary_key=True)
    deleted_at: Mapped[datetime]


class AppMessage(Base):
    """A webhook owed to the user's application: what it says is fixed here, so that every try says the same."""

    __tablename__ = "app_messages"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)  # the key of the job that delivers it
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
