"""The business state in SQL, the same on SQLite and Postgres. Money is in minor units; times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite, which keeps no zone, gets it without one and is believed to have kept UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Every table of ours."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcTime(),
        int: BigInteger(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
    }


class Effect(Base):
    """The job has had its effect. Written in the same transaction, so that a rerun changes nothing."""

    __tablename__ = "effects"

    job_id: Mapped[str] = mapped_column(String(800), primary_key=True)
    follow_ups: Mapped[str] = mapped_column(Text)  # JSON, so that a rerun owes the same jobs
    done_at: Mapped[datetime]


# --- payments ---------------------------------------------------------------------------------------------------------


class Subscription(Base):
    """A Stripe subscription: Stripe's word for it, and the status that follows from all that is known.

    (seen_created, seen_event) is the watermark of Stripe's word: an older event changes nothing (tasks/standing.py).
    """

    __tablename__ = "subscriptions"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer: Mapped[str]
    stripe_status: Mapped[str | None]  # None while only its invoices are known
    seen_created: Mapped[int] = mapped_column(default=0)
    seen_event: Mapped[str] = mapped_column(default="")
    status: Mapped[str]  # a word of Stripe's, or ours: suspended
    updated_at: Mapped[datetime]


class Invoice(Base):
    """The newest that is known of an invoice that failed or was settled, with its watermark."""

    __tablename__ = "invoices"

    id: Mapped[str] = mapped_column(primary_key=True)
    customer: Mapped[str] = mapped_column(index=True)
    subscription: Mapped[str | None] = mapped_column(index=True)
    state: Mapped[str]  # open | paid | void | uncollectible
    amount_due: Mapped[int]
    currency: Mapped[str]
    hosted_invoice_url: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
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


# --- reconcile --------------------------------------------------------------------------------------------------------


class Reconcile(Base):
    """How far we have asked a sender what we missed: one row a sender.

    `asked` is the newest request that a worker has begun. since and until bound the events it goes through, in the
    sender's seconds since 1970, and `after` is the last event of the last page taken in. Between looks until is None.
    """

    __tablename__ = "reconciles"

    source: Mapped[str] = mapped_column(primary_key=True)
    asked: Mapped[str]
    since: Mapped[int | None]
    until: Mapped[int | None]
    after: Mapped[str]
    everything: Mapped[bool]  # those, too, that the sender says it has delivered
    seen_until: Mapped[int | None]  # what the last finished look has covered
    tried_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # why the last try failed; None: it did not


# --- fulfilment -------------------------------------------------------------------------------------------------------


class Order(Base):
    """What one checkout session bought: one row per session, however many events tell of it."""

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
    access_changes: Mapped[int] = mapped_column(default=0)  # how often access was granted or revoked
    created_at: Mapped[datetime]
    fulfilled_at: Mapped[datetime | None]


class Entitlement(Base):
    """Somebody may use a product while `revoked_at` is empty, which tasks/access.py alone decides."""

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


# --- documents --------------------------------------------------------------------------------------------------------


class Document(Base):
    """A document that we had processed: submitting -> processing -> downloading -> completed, or failed on the way."""

    __tablename__ = "documents"

    id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(index=True)  # the document service's name for what to process
    status: Mapped[str]
    progress: Mapped[int] = mapped_column(Integer, default=0)  # per cent
    task_id: Mapped[str | None] = mapped_column(unique=True)
    result_url: Mapped[str | None]
    error: Mapped[str | None]
    received_bytes: Mapped[int] = mapped_column(default=0)  # of the download under way
    size: Mapped[int | None]
    sha256: Mapped[str | None]
    content_type: Mapped[str | None]
    stored_as: Mapped[str | None]  # a name within DOCUMENT_STORE
    notify_email: Mapped[str | None]
    notify_agents: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class DocumentStep(Base):
    """One line of a document's timeline."""

    __tablename__ = "document_steps"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    document: Mapped[str] = mapped_column(ForeignKey("documents.id"), index=True)
    status: Mapped[str]
    progress: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime]


# --- notifications ----------------------------------------------------------------------------------------------------


class Notification(Base):
    """A message owed to a customer or the administrator. Its id is the key of the job that sends it."""

    __tablename__ = "notifications"

    id: Mapped[str] = mapped_column(String(800), primary_key=True)
    kind: Mapped[str]  # names the template
    audience: Mapped[str]  # customer | admin
    about: Mapped[str] = mapped_column(index=True, default="")  # the invoice or subscription that it tells of
    customer: Mapped[str | None]  # Stripe's, whose language, and where need be address, is looked up before sending
    locale: Mapped[str | None]
    email: Mapped[str | None]
    phone: Mapped[str | None]
    params: Mapped[dict[str, Any]]
    state: Mapped[str]  # owed | sent | not_configured | no_address
    sent_by: Mapped[list[str]] = mapped_column(default=list)  # digests of the service URLs that have taken it
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
