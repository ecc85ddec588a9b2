"""Orders, entitlements, and what can revoke them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Order(Base):
    """The purchase of one checkout session: one row per session, however many events it has.

    A subscription created without a session has an order under its own id (subscriptions_without_checkout.py).
    """

    __tablename__ = "orders"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    # expired | awaiting_payment | payment_failed | fulfilled: it only ever changes to one further right
    state: Mapped[str]
    customer: Mapped[str | None] = mapped_column(index=True)
    client_reference: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    amount_total: Mapped[int]
    currency: Mapped[str]
    bought: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)  # tasks/orders/product_grants.py
    access_changes: Mapped[int] = mapped_column(default=0)  # how often access was granted or revoked
    created_at: Mapped[datetime]
    fulfilled_at: Mapped[datetime | None]


class Entitlement(Base):
    """A product that an order gives access to, while `revoked_at` is None. Only tasks/orders/access.py sets that."""

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
    """A charge that was refunded, at least in part. It may be recorded before the order that it paid for."""

    __tablename__ = "charges"

    id: Mapped[str] = mapped_column(primary_key=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    amount: Mapped[int]
    amount_refunded: Mapped[int]
    refunded: Mapped[bool]  # in full
    currency: Mapped[str]
    created: Mapped[int]  # seconds since 1970, Stripe's clock
    seen_created: Mapped[int]  # of the newest event; an older (seen_created, amount_refunded) changes nothing
    updated_at: Mapped[datetime]


class Dispute(Base):
    """A dispute or an inquiry by a customer's bank. It may be recorded before the order that it concerns."""

    __tablename__ = "disputes"

    id: Mapped[str] = mapped_column(primary_key=True)
    charge: Mapped[str] = mapped_column(index=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    amount: Mapped[int]
    currency: Mapped[str]
    reason: Mapped[str]
    status: Mapped[str]  # Stripe's status
    charge_created: Mapped[int]  # seconds since 1970, Stripe's clock; the dispute's own time if the charge is not known
    seen_created: Mapped[int]
    seen_event: Mapped[str]
    updated_at: Mapped[datetime]


class DeletedCustomer(Base):
    """A customer that was deleted at Stripe, which cannot be undone."""

    __tablename__ = "deleted_customers"

    id: Mapped[str] = mapped_column(primary_key=True)
    deleted_at: Mapped[datetime]


class AppMessage(Base):
    """A webhook to the user's application. Its content is stored, so that every attempt sends the same."""

    __tablename__ = "app_messages"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)  # the id of the job that delivers it
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
