"""Which payment paid which invoice"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "invoice_payments",
        sa.Column("payment_intent", sa.String(), primary_key=True),
        sa.Column("invoice", sa.String(), nullable=False, index=True),
        sa.Column("account", sa.String(), nullable=False, server_default=""),
    )
    op.execute(
        "INSERT INTO invoice_payments (payment_intent, invoice, account) "
        "SELECT id, invoice, account FROM payment_intents WHERE invoice IS NOT NULL"
    )
