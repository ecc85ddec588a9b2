"""Subscriptions, invoices, and the dunning of unpaid invoices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, false, text
from sqlalchemy.orm import Mapped, mapped_column

from tasks.models.base import Base, OfAccount


class Subscription(OfAccount, Base):
    """A Stripe subscription: its status at Stripe, and our status, computed from that and the invoices.

    (seen_created, seen_event) is the version of stripe_status and items: an older event does not change them
    (tasks/billing/subscription_state.py).
    """

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(index=True)
    stripe_status: Mapped[str | None]  # None while only its invoices are known
    seen_created: Mapped[int] = mapped_column(default=0)
    seen_event: Mapped[str] = mapped_column(default="")
    # what was bought, see tasks/orders/product_grants.py; a complete list is never replaced by a part
    items: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON(none_as_null=True))
    # what happens next, for messages: tasks/billing/terms.py
    terms: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    items_complete: Mapped[bool] = mapped_column(default=False, server_default=false())
    items_seen_created: Mapped[int] = mapped_column(default=0, server_default="0")
    items_seen_event: Mapped[str] = mapped_column(default="", server_default="")
    product: Mapped[str | None]  # metadata.product: what the shop calls it, in place of the items
    meta: Mapped[dict[str, Any] | None]  # Stripe's metadata
    period_end: Mapped[int | None]  # seconds since 1970, Stripe's clock, as cancel_at
    cancel_at: Mapped[int | None]  # when it is planned to end
    ended_because: Mapped[str | None]  # Stripe's cancellation_details.reason
    paused_because: Mapped[str | None]  # Stripe's status_details.paused.subscription.type
    sent: Mapped[bool] = mapped_column(default=False)  # collection_method is send_invoice
    latest_invoice: Mapped[str | None]  # the newest one that the subscription generated itself
    pending_update: Mapped[bool] = mapped_column(default=False)  # a change waits for the payment of its invoice
    status: Mapped[str] = mapped_column(index=True)  # one of Stripe's, or ours: suspended
    listed_at: Mapped[int | None]  # the newest run of subscription_sync.py in which Stripe listed it
    updated_at: Mapped[datetime]


class Invoice(OfAccount, Base):
    """The newest known version of an invoice that failed or was settled."""

    __tablename__ = "invoices"
    __table_args__ = (Index("ix_invoices_email", text("lower(email)")),)

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
    lines: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSON(none_as_null=True)
    )  # tasks/billing/invoice_lines.py
    lines_complete: Mapped[bool] = mapped_column(default=False, server_default=false())
    period_end: Mapped[int | None]  # the end of the latest period that it pays for; seconds since 1970, Stripe's clock
    renewal_told: Mapped[bool] = mapped_column(
        default=False, server_default=false()
    )  # subscription.renewed is enqueued
    meta: Mapped[dict[str, Any] | None]  # Stripe's metadata
    due_date: Mapped[int | None]  # if sent; seconds since 1970, Stripe's clock
    last_try: Mapped[bool]  # Stripe will make no further attempt by itself
    next_try: Mapped[int | None]  # when Stripe makes its next attempt; seconds since 1970, Stripe's clock
    auto_advance: Mapped[bool] = mapped_column(default=True)  # False: Stripe does not collect it by itself
    forgiven: Mapped[bool] = mapped_column(default=False)  # uncollectible because a person has waived it
    created: Mapped[int]  # when the invoice was created; seconds since 1970, Stripe's clock
    seen_created: Mapped[int]
    seen_event: Mapped[str]


class PaymentFailure(OfAccount, Base):
    """One failure to collect an invoice, whatever the ids of the events that report it; the newest event's values."""

    __tablename__ = "payment_failures"
    __table_args__ = (Index("payment_failures_of_attempts", "invoice", "kind", "attempt_count", unique=True),)

    event_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]  # payment_failed | payment_action_required | overdue (sent, and not paid by its due date)
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
    """The n-th payment of an invoice that we ask for: by our schedule, or with a new payment method of the customer.

    One series per invoice, however many events report failures.
    """

    __tablename__ = "payment_retries"

    invoice: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # 1 for the first
    state: Mapped[str]  # planned | pending (at the bank) | paid | declined | stopped (written off) | cancelled
    decline_code: Mapped[str | None]
    charged: Mapped[bool] = mapped_column(default=False)  # Stripe was asked to charge; else it would only be declined
    method: Mapped[str | None]  # the new payment method that it is for; None: it is one of the schedule
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
