"""No links in notifications: a link to a document is made when its mail is sent"""

from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOTIFICATIONS = sa.table(
    "notifications", sa.column("id", sa.String()), sa.column("kind", sa.String()), sa.column("params", sa.JSON())
)


def upgrade() -> None:
    db = op.get_bind()
    rows = db.execute(
        sa.select(NOTIFICATIONS.c.id, NOTIFICATIONS.c.params).where(NOTIFICATIONS.c.kind == "document_ready")
    ).all()
    for row in rows:
        if "link" in row.params:
            change = sa.update(NOTIFICATIONS).where(NOTIFICATIONS.c.id == row.id)
            db.execute(change.values(params=_without_link(row.params)))


def _without_link(params: dict[str, Any]) -> dict[str, Any]:
    document = unquote(urlsplit(params["link"]).path.rpartition("/")[2])
    return {name: value for name, value in params.items() if name != "link"} | {"link_to": document}
