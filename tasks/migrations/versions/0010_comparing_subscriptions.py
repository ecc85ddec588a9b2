"""How far our subscriptions have been compared with Stripe's"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("subscriptions", sa.Column("listed_at", sa.BigInteger()))
    op.create_table(
        "subscription_syncs",
        sa.Column("source", sa.String(), primary_key=True),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("began", sa.BigInteger()),
        sa.Column("imports", sa.Boolean(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("unlisted_after", sa.String()),
        sa.Column("listed", sa.BigInteger(), nullable=False),
        sa.Column("differing", sa.BigInteger(), nullable=False),
        sa.Column("imported_at", sa.DateTime(timezone=True)),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("failure", sa.String()),
    )
