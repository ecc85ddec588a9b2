"""Customers, orders, entitlements, and what can revoke them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, Integer, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base, OfAccount


class Customer(OfAccount, Base):
    """Who holds access: a customer, or the order of a guest. Locked while that access is recomputed."""

    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(primary_key=True)  # the customer's or the order's; `acct_…/cus_…` of an account
    sequence: Mapped[int] = mapped_column(default=0)  # of the newest message to the application
    livemode: Mapped[bool | None]
    created_at: Mapped[datetime]


class Order(OfAccount, Base):
    """A purchase: of a checkout session, or of a payment or invoice that no session began. One row for each."""

    __tablename__ = "orders"
    __table_args__ = (Index("ix_orders_email", text("lower(email)")),)

    session_id: Mapped[str] = mapped_column(primary_key=True)  # without a session the payment intent's or the invoice's
    # expired | awaiting_payment | payment_failed | fulfilled: it only ever changes to one further right
    state: Mapped[str]
    customer: Mapped[str | None] = mapped_column(index=True)
    client_reference: Mapped[str | None] = mapped_column(index=True)
    email: Mapped[str | None]
    phone: Mapped[str | None]
    locale: Mapped[str | None]
    subscription: Mapped[str | None] = mapped_column(index=True)
    payment_intent: Mapped[str | None] = mapped_column(index=True)
    invoice: Mapped[str | None] = mapped_column(index=True)
    amount_total: Mapped[int]
    currency: Mapped[str]
    presentment_amount: Mapped[int | None]  # what the customer paid, if that is another currency
    presentment_currency: Mapped[str | None]
    product: Mapped[str | None]  # metadata.product: what the shop calls it, in place of the items
    meta: Mapped[dict[str, Any] | None]  # Stripe's metadata
    bought: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)  # tasks/orders/product_grants.py
    created: Mapped[int] = mapped_column(default=0)  # seconds since 1970, Stripe's clock
    created_at: Mapped[datetime]
    fulfilled_at: Mapped[datetime | None]


class Entitlement(OfAccount, Base):
    """What an order or a subscription (`source`) gives access to, while `revoked_at` is None.

    Only tasks/orders/access.py writes it, and always the whole row: it is what the facts say now.
    """

    __tablename__ = "entitlements"
    __table_args__ = (UniqueConstraint("source", "product", name="uq_entitlements_source"),)

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    source: Mapped[str]  # id of the order or the subscription
    product: Mapped[str]  # the name of the entitlement
    holder: Mapped[str] = mapped_column(index=True)  # id in `customers`
    customer: Mapped[str | None] = mapped_column(index=True)
    client_reference: Mapped[str | None] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    quantity: Mapped[int | None]  # None: not counted (metered)
    until: Mapped[int | None]  # the end of the paid period; seconds since 1970, Stripe's clock, as the next two
    cancel_at: Mapped[int | None]  # when it is planned to end
    grace_until: Mapped[int | None]  # when it ends unless the open invoice is paid
    past_due: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str] = mapped_column(default="")  # why it is not in force (tasks/orders/access_rules.py)
    changes: Mapped[int] = mapped_column(default=0)  # how often it was granted or revoked
    granted_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class PaymentIntent(OfAccount, Base):
    """A payment that has succeeded. It may be recorded before the order that it paid for."""

    __tablename__ = "payment_intents"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer: Mapped[str | None]
    invoice: Mapped[str | None]
    email: Mapped[str | None]
    amount: Mapped[int]
    currency: Mapped[str]
    product: Mapped[str | None]  # metadata.product
    meta: Mapped[dict[str, Any] | None]
    created: Mapped[int]


class InvoicePayment(OfAccount, Base):
    """A payment of an invoice, or of a part of it."""

    __tablename__ = "invoice_payments"

    payment_intent: Mapped[str] = mapped_column(primary_key=True)
    invoice: Mapped[str] = mapped_column(index=True)


class Charge(OfAccount, Base):
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


class Dispute(OfAccount, Base):
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
    """A customer that was deleted at Stripe, which cannot be undone. One of a connected account is `acct_…/cus_…`."""

    __tablename__ = "deleted_customers"

    id: Mapped[str] = mapped_column(primary_key=True)
    deleted_at: Mapped[datetime]


class AppMessage(Base):
    """A webhook to the user's application. Its content is stored, so that every attempt sends the same."""

    __tablename__ = "app_messages"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)  # the id of the job that delivers it
    type: Mapped[str]
    customer: Mapped[str | None] = mapped_column(index=True)  # id in `customers`
    data: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
