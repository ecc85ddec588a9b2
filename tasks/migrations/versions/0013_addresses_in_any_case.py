"""Addresses are found in any case"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_orders_email", "orders", [sa.text("lower(email)")])
    op.create_index("ix_invoices_email", "invoices", [sa.text("lower(email)")])
