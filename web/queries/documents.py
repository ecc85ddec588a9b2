"""A page of the documents that were asked for, the newest first; for the API and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from tasks.models import Document
from web.errors import HttpError

STATES = ("submitting", "processing", "downloading", "completed", "failed")


def load_page(db: Session, given: Mapping[str, str], rows: int) -> tuple[Sequence[Document], str | None]:
    """Those of the state and with the document_id (`q`) that are `given`, and where the next page begins, if there is
    one. Raises Refused."""
    state, name = given.get("state", ""), given.get("q", "").strip()
    if not name.isprintable():
        raise HttpError("q takes printable characters")
    if state not in ("", *STATES):
        raise HttpError(f"state takes one of {', '.join(STATES)}")
    found = db.scalars(_query(state, name, given.get("cursor", "")).limit(rows)).all()
    return found, row_cursor(found[-1].created_at, found[-1].id) if len(found) == rows else None


def row_cursor(at: datetime, name: str) -> str:
    """Where the page behind the row of this time and id begins."""
    return f"{at.isoformat()}_{name}"


def _query(state: str, name: str, cursor: str) -> Select[Document]:
    """The newest first, behind the one that `cursor` names."""
    rows = select(Document).order_by(Document.created_at.desc(), Document.id.desc())
    if state:
        rows = rows.where(Document.status == state)
    if name:
        rows = rows.where(Document.document_id == name)
    if cursor:
        rows = rows.where(tuple_(Document.created_at, Document.id) < tuple_(*parse_row_cursor(cursor)))
    return rows


def parse_row_cursor(cursor: str) -> tuple[datetime, str]:
    """The time and the id of the row that such a cursor is behind. Raises Refused."""
    at, _, name = cursor.partition("_")
    try:
        when = datetime.fromisoformat(at)
    except ValueError:
        raise HttpError("cursor takes what the last page gave") from None
    if not (name and name.isprintable()):
        raise HttpError("cursor takes what the last page gave")
    return when if when.tzinfo else when.replace(tzinfo=UTC), name
