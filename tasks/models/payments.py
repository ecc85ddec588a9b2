"""Subscriptions and what became of their invoices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base


class Subscription(Base):
    """A Stripe subscription: Stripe's word for it, and the status that follows from all that is known.

    (seen_created, seen_event) is the watermark of Stripe's word, stripe_status and items: an older event changes
    nothing (tasks/billing/subscription_state.py).
    """

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer: Mapped[str]
    stripe_status: Mapped[str | None]  # None while only its invoices are known
    seen_created: Mapped[int] = mapped_column(default=0)
    seen_event: Mapped[str] = mapped_column(default="")
    items: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))  # tasks/orders/entitlements.py
    status: Mapped[str] = mapped_column(index=True)  # a word of Stripe's, or ours: suspended
    updated_at: Mapped[datetime]


class Invoice(Base):
    """The newest that is known of an invoice that failed or was settled, with its watermark."""

    __tablename__ = "invoices"

    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str | None]  # by which the customer knows it
    customer: Mapped[str] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    state: Mapped[str]  # open | paid | void | uncollectible
    amount_due: Mapped[int]
    amount_remaining: Mapped[int]
    renews: Mapped[bool]  # it is for a time of its subscription
    currency: Mapped[str]
    hosted_invoice_url: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    billing_reason: Mapped[str | None]  # Stripe's word
    sent: Mapped[bool]  # to be paid by hand, instead of charged
    due_date: Mapped[int | None]  # of a sent one, by Stripe's clock, seconds since 1970
    last_try: Mapped[bool]  # Stripe will not try again by itself
    created: Mapped[int]  # the invoice itself, by Stripe's clock, seconds since 1970
    seen_created: Mapped[int]
    seen_event: Mapped[str]


class PaymentFailure(Base):
    """One failed try to collect an invoice, as one event reported it."""

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
    created: Mapped[int]  # Stripe's clock, seconds since 1970
    recorded_at: Mapped[datetime]


class PaymentRetry(Base):
    """The n-th retry of an invoice by our own schedule: one chain per invoice, however many events report failures."""

    __tablename__ = "payment_retries"

    invoice: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1 for the first
    state: Mapped[str]  # planned | pending (at the bank) | paid | declined | stopped (written off) | cancelled
    decline_code: Mapped[str | None]
    broken: Mapped[int] = mapped_column(default=0)  # how many of its idempotency keys Stripe answered with 5xx
    due_at: Mapped[datetime]
    done_at: Mapped[datetime | None]


class PaymentGrace(Base):
    """The n-th grace time of an invoice after its last failure, before its subscription is suspended."""

    __tablename__ = "payment_graces"

    invoice: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1 for the first
    state: Mapped[str]  # planned | cancelled | over
    due_at: Mapped[datetime]
    done_at: Mapped[datetime | None]
