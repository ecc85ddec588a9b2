"""The first tables"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def text(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.String(), **{"nullable": False, **options})


def whole(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), **{"nullable": False, **options})


def time(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), **{"nullable": False, **options})


def upgrade() -> None:
    op.create_table(
        "effects",
        sa.Column("job_id", sa.String(800), primary_key=True),
        sa.Column("follow_ups", sa.Text(), nullable=False),
        time("done_at"),
    )
    _payments()
    _reconcile()
    _fulfilment()
    _refunds()
    _documents()
    _agents()
    op.create_table(
        "notifications",
        sa.Column("id", sa.String(800), primary_key=True),
        text("kind"),
        text("audience"),
        text("about", index=True),
        text("customer", nullable=True),
        text("locale", nullable=True),
        text("email", nullable=True),
        text("phone", nullable=True),
        sa.Column("params", sa.JSON(), nullable=False),
        text("state"),
        sa.Column("sent_by", sa.JSON(), nullable=False),
        time("created_at"),
        time("sent_at", nullable=True),
    )


def _payments() -> None:
    op.create_table(
        "subscriptions",
        text("id", primary_key=True),
        text("customer"),
        text("stripe_status", nullable=True),
        whole("seen_created"),
        text("seen_event"),
        sa.Column("items", sa.JSON(), nullable=True),
        text("status", index=True),
        time("updated_at"),
    )
    op.create_table(
        "invoices",
        text("id", primary_key=True),
        text("number", nullable=True),
        text("customer", index=True),
        text("subscription", index=True, nullable=True),
        text("state"),
        whole("amount_due"),
        whole("amount_remaining"),
        sa.Column("renews", sa.Boolean(), nullable=False),
        text("currency"),
        text("hosted_invoice_url", nullable=True),
        text("email", nullable=True),
        text("phone", nullable=True),
        text("billing_reason", nullable=True),
        sa.Column("sent", sa.Boolean(), nullable=False),
        whole("due_date", nullable=True),
        sa.Column("last_try", sa.Boolean(), nullable=False),
        whole("created"),
        whole("seen_created"),
        text("seen_event"),
    )
    op.create_table(
        "payment_failures",
        text("event_id", primary_key=True),
        text("kind"),
        text("invoice", index=True),
        text("customer", index=True),
        text("subscription", index=True, nullable=True),
        whole("amount_due"),
        text("currency"),
        whole("attempt_count"),
        text("decline_code", nullable=True),
        text("hosted_invoice_url", nullable=True),
        whole("created"),
        time("recorded_at"),
    )
    op.create_table(
        "payment_retries",
        text("invoice", primary_key=True),
        whole("number", primary_key=True, autoincrement=False),
        text("state"),
        text("decline_code", nullable=True),
        whole("broken"),
        time("due_at"),
        time("done_at", nullable=True),
    )
    op.create_table(
        "payment_graces",
        text("invoice", primary_key=True),
        whole("number", primary_key=True, autoincrement=False),
        text("state"),
        time("due_at"),
        time("done_at", nullable=True),
    )


def _reconcile() -> None:
    op.create_table(
        "replays",
        text("id", primary_key=True),
        text("by"),
        sa.Column("wanted", sa.JSON(), nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("page", sa.JSON(), nullable=False),
        sa.Column("planned", sa.Boolean(), nullable=False),
        text("place"),
        whole("total"),
        whole("looked"),
        whole("replayed"),
        whole("skipped"),
        time("created_at", index=True),
        time("finished_at", nullable=True),
    )
    op.create_table(
        "reconciles",
        text("source", primary_key=True),
        text("asked"),
        whole("since", nullable=True),
        whole("until", nullable=True),
        text("after"),
        sa.Column("everything", sa.Boolean(), nullable=False),
        whole("seen_until", nullable=True),
        whole("everything_until", nullable=True),
        time("tried_at"),
        time("finished_at", nullable=True),
        text("failure", nullable=True),
    )


def _fulfilment() -> None:
    op.create_table(
        "orders",
        text("session_id", primary_key=True),
        text("state"),
        text("customer", index=True, nullable=True),
        text("client_reference", index=True, nullable=True),
        text("subscription", index=True, nullable=True),
        text("payment_intent", index=True, nullable=True),
        text("invoice", index=True, nullable=True),
        whole("amount_total"),
        text("currency"),
        sa.Column("bought", sa.JSON(), nullable=False),
        whole("access_changes"),
        time("created_at"),
        time("fulfilled_at", nullable=True),
    )
    op.create_table(
        "entitlements",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("session_id", sa.String(), sa.ForeignKey("orders.session_id"), nullable=False),
        text("product"),
        text("customer", index=True, nullable=True),
        text("client_reference", index=True, nullable=True),
        text("subscription", index=True, nullable=True),
        time("granted_at"),
        time("revoked_at", nullable=True),
        sa.UniqueConstraint("session_id", "product"),
    )


def _refunds() -> None:
    op.create_table(
        "charges",
        text("id", primary_key=True),
        text("payment_intent", index=True, nullable=True),
        text("invoice", index=True, nullable=True),
        text("subscription", index=True, nullable=True),
        whole("amount"),
        whole("amount_refunded"),
        sa.Column("refunded", sa.Boolean(), nullable=False),
        text("currency"),
        whole("created"),
        whole("seen_created"),
        time("updated_at"),
    )
    op.create_table(
        "disputes",
        text("id", primary_key=True),
        text("charge", index=True),
        text("payment_intent", index=True, nullable=True),
        text("invoice", index=True, nullable=True),
        text("subscription", index=True, nullable=True),
        whole("amount"),
        text("currency"),
        text("reason"),
        text("status"),
        whole("charge_created"),
        whole("seen_created"),
        text("seen_event"),
        time("updated_at"),
    )
    op.create_table("deleted_customers", text("id", primary_key=True), time("deleted_at"))
    op.create_table(
        "app_messages",
        sa.Column("id", sa.String(800), primary_key=True),
        text("type"),
        sa.Column("data", sa.JSON(), nullable=False),
        time("created_at"),
    )


def _documents() -> None:
    op.create_table(
        "documents",
        text("id", primary_key=True),
        text("document_id", index=True),
        sa.Column("options", sa.JSON(), nullable=False),
        text("status", index=True),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        text("task_id", nullable=True, unique=True),
        text("result_url", nullable=True),
        text("result_sha256", nullable=True),
        whole("result_size", nullable=True),
        text("error", nullable=True),
        whole("received_bytes"),
        whole("total_bytes", nullable=True),
        whole("size", nullable=True),
        text("sha256", nullable=True),
        text("content_type", nullable=True),
        text("stored_as", nullable=True),
        text("notify_email", nullable=True),
        sa.Column("notify_agents", sa.JSON(), nullable=False),
        time("created_at", index=True),
        time("updated_at"),
    )
    op.create_table(
        "document_steps",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("document", sa.String(), sa.ForeignKey("documents.id"), index=True, nullable=False),
        text("status"),
        sa.Column("progress", sa.Integer(), nullable=False),
        time("at"),
    )
    op.create_table(
        "former_tasks",
        text("task_id", primary_key=True),
        sa.Column("document", sa.String(), sa.ForeignKey("documents.id"), nullable=False),
    )


def _agents() -> None:
    op.create_table(
        "agents",
        text("id", primary_key=True),
        text("name", nullable=True, unique=True),
        text("url"),
        text("state"),
        sa.Column("rate_per_minute", sa.Integer(), nullable=False),
        time("next_at", nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        time("failing_since", nullable=True),
        time("open_until", nullable=True),
        text("last_answer", nullable=True),
        time("last_at", nullable=True),
    )
    op.create_table(
        "agent_deeds",
        sa.Column("id", ROW_ID, primary_key=True),
        sa.Column("agent", sa.String(), sa.ForeignKey("agents.id"), index=True, nullable=False),
        text("deed"),
        sa.Column("by", sa.String(800), nullable=False),
        time("at"),
    )
    op.create_table(
        "handoffs",
        sa.Column("id", sa.String(800), primary_key=True),
        sa.Column("document", sa.String(), sa.ForeignKey("documents.id"), nullable=False),
        sa.Column("agent", sa.String(), sa.ForeignKey("agents.id"), index=True, nullable=False),
        text("kind"),
        sa.Column("data", sa.JSON(), nullable=False),
        text("state"),
        time("place", nullable=True),
        time("created_at"),
        time("updated_at"),
    )
