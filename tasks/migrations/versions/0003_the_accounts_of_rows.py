"""The accounts of rows

The default is for the old workers that run until they are replaced: they insert rows without an account.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("subscriptions", "invoices", "payment_failures", "orders", "entitlements", "charges", "disputes")


def upgrade() -> None:
    for table in TABLES:
        op.add_column(table, sa.Column("account", sa.String(), nullable=False, server_default=""))
