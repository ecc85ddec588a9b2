"""Subscriptions, invoices, and the dunning of unpaid invoices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Subscription(Base):
    """A Stripe subscription: its status at Stripe, and our status, computed from that and the invoices.

    (seen_created, seen_event) is the version of stripe_status and items: an older event does not change them
    (tasks/billing/subscription_state.py).
    """

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer: Mapped[str]
    stripe_status: Mapped[str | None]  # None while only its invoices are known
    seen_created: Mapped[int] = mapped_column(default=0)
    seen_event: Mapped[str] = mapped_column(default="")
    # what was bought, see tasks/orders/product_grants.py
    items: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    status: Mapped[str] = mapped_column(index=True)  # one of Stripe's, or ours: suspended
    updated_at: Mapped[datetime]


class Invoice(Base):
    """The newest known version of an invoice that failed or was settled."""

    __tablename__ = "invoices"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str | None]  # as printed on the invoice
    customer: Mapped[str] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    state: Mapped[str]  # open | paid | void | uncollectible
    amount_due: Mapped[int]
    amount_remaining: Mapped[int]
    renews: Mapped[bool]  # it pays for a billing period of its subscription
    currency: Mapped[str]
    hosted_invoice_url: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    billing_reason: Mapped[str | None]  # Stripe's
    sent: Mapped[bool]  # collection_method is send_invoice: the customer pays it manually
    due_date: Mapped[int | None]  # if sent; seconds since 1970, Stripe's clock
    last_try: Mapped[bool]  # Stripe will make no further attempt by itself
    created: Mapped[int]  # when the invoice was created; seconds since 1970, Stripe's clock
    seen_created: Mapped[int]
    seen_event: Mapped[str]


class PaymentFailure(Base):
    """One failed attempt to collect an invoice, as one event reported it."""

    __tablename__ = "payment_failures"

    event_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]  # payment_failed | payment_action_required
    invoice: Mapped[str] = mapped_column(index=True)
    customer: Mapped[str] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    amount_due: Mapped[int]
    currency: Mapped[str]
    attempt_count: Mapped[int]
    decline_code: Mapped[str | None]
    hosted_invoice_url: Mapped[str | None]
    created: Mapped[int]  # seconds since 1970, Stripe's clock
    recorded_at: Mapped[datetime]


class PaymentRetry(Base):
    """The n-th retry of an invoice by our schedule: one series per invoice, however many events report failures."""

    __tablename__ = "payment_retries"

    invoice: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1 for the first
    state: Mapped[str]  # planned | pending (at the bank) | paid | declined | stopped (written off) | cancelled
    decline_code: Mapped[str | None]
    broken: Mapped[int] = mapped_column(default=0)  # how many of its idempotency keys ended in a 5xx from Stripe
    due_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


class PaymentGrace(Base):
    """The n-th grace period of an invoice: after its last failure, before its subscription is suspended."""

    __tablename__ = "payment_graces"

    invoice: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1 for the first
    state: Mapped[str]  # planned | cancelled | over
    due_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
