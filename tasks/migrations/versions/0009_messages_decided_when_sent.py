"""Messages are decided when they are sent: what their texts need, and which event led to them"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("notifications", sa.Column("event", sa.String(), nullable=False, server_default=""))
    op.add_column("documents", sa.Column("notify_locale", sa.String()))
    op.add_column("subscriptions", sa.Column("terms", sa.JSON()))
    op.add_column("invoices", sa.Column("next_try", sa.BigInteger()))
