"""A page of documents, the newest first; for the API and the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from tasks.models import Document
from web.errors import HttpError
from web.queries.filters import parse_row_cursor, row_cursor

STATES = ("submitting", "processing", "downloading", "completed", "failed")


def load_page(db: Session, params: Mapping[str, str], limit: int) -> tuple[Sequence[Document], str | None]:
    """At most `limit` documents and the cursor of the next page, or None if this is the last page.

    `params`: `state`, `q` (a document_id) and `cursor`, all optional. Raises HttpError.
    """
    state, document_id = params.get("state", ""), params.get("q", "").strip()
    if not document_id.isprintable():
        raise HttpError("q must consist of printable characters")
    if state not in ("", *STATES):
        raise HttpError(f"state must be one of {', '.join(STATES)}")
    rows = db.scalars(_query(state, document_id, params.get("cursor", "")).limit(limit)).all()
    return rows, row_cursor(rows[-1].created_at, rows[-1].id) if len(rows) == limit else None


def _query(state: str, document_id: str, cursor: str) -> Select[Document]:
    rows = select(Document).order_by(Document.created_at.desc(), Document.id.desc())
    if state:
        rows = rows.where(Document.status == state)
    if document_id:
        rows = rows.where(Document.document_id == document_id)
    if cursor:
        rows = rows.where(tuple_(Document.created_at, Document.id) < tuple_(*parse_row_cursor(cursor)))
    return rows
