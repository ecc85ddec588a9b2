"""The subscriptions of a customer are found by an index"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_subscriptions_customer", "subscriptions", ["customer"])
