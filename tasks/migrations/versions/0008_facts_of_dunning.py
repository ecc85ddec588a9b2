"""Facts that decide dunning: Stripe's next attempt, write-offs, pending updates; one row per failure

The defaults are for the old workers that run until they are replaced: they insert rows without these columns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Of failures that several events reported, the newest event's row stays.
KEEP_THE_NEWEST = """DELETE FROM payment_failures WHERE event_id NOT IN (
    SELECT event_id FROM (
        SELECT event_id, row_number() OVER (
            PARTITION BY invoice, kind, attempt_count ORDER BY created DESC, event_id DESC
        ) AS place FROM payment_failures
    ) AS ranked WHERE place = 1
)"""


def flag(name: str, default: bool) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.true() if default else sa.false())


COLUMNS = {
    "subscriptions": (
        flag("sent", False),
        sa.Column("latest_invoice", sa.String()),
        flag("pending_update", False),
        sa.Column("paused_because", sa.String()),
    ),
    "invoices": (
        flag("auto_advance", True),
        flag("forgiven", False),
    ),
    # what an earlier version declined was charged, as far as is known
    "payment_retries": (flag("charged", True), sa.Column("method", sa.String())),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.add_column(table, column)
    op.execute(KEEP_THE_NEWEST)
    key = ["invoice", "kind", "attempt_count"]
    op.create_index("payment_failures_of_attempts", "payment_failures", key, unique=True)
