"""Secrets of agents can be rotated"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A worker of an earlier version adds agents without the number.
    op.add_column("agents", sa.Column("secret_number", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("agents", sa.Column("rotated_at", sa.DateTime(timezone=True)))
    # 0: the secret that earlier versions gave out when the agent was added. It is valid until it is rotated.
    op.execute("UPDATE agents SET secret_number = 0 WHERE name IS NOT NULL")
