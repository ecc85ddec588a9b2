"""Documents: how far each is, and one of them with its time line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from inbox import look
from inbox.store import Store
from settings import Settings
from tasks.models import Document, DocumentStep
from web.api import content
from web.errors import Refused

ROWS = 50
STATES = ("submitting", "processing", "downloading", "completed", "failed")


def register(pages: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/documents and what is below it"""

    @pages.get("/documents")
    def documents() -> ResponseReturnValue:
        state, name = request.args.get("state", ""), request.args.get("q", "").strip()
        if not name.isprintable():
            raise Refused("q takes printable characters")
        with sessions() as db:
            if name and db.get(Document, name) is not None:
                return redirect(url_for("console.document", document=name))
            rows = db.scalars(_listed(state, name, request.args.get("cursor", ""))).all()
        last = f"{rows[-1].created_at.isoformat()}_{rows[-1].id}" if len(rows) == ROWS else None
        given = {"state": state, "q": name}
        return render_template("documents.html", documents=rows, states=STATES, given=given, cursor=last)

    @pages.get("/documents/<document>")
    def document(document: str) -> str:
        if not document.isprintable():  # Postgres takes no NUL in a text, not even to look for
            raise Refused("No such document.", 404)
        with sessions() as db:
            row = db.get(Document, document)
            mine = select(DocumentStep).where(DocumentStep.document == document)
            steps = db.scalars(mine.order_by(DocumentStep.id.desc()).limit(200)).all()
        if row is None and look.event(store, "api", document) is None:
            raise Refused("No such document.", 404)
        return render_template("document.html", id=document, document=row, steps=steps)

    @pages.get("/documents/<document>/content")
    def document_content(document: str) -> Response:
        with sessions() as db:
            row = db.get(Document, document) if document.isprintable() else None
        if row is None or row.status != "completed" or row.stored_as is None:
            raise Refused("No such document, or it is not complete.", 404)
        return content(settings, row, row.stored_as)


def _listed(state: str, name: str, cursor: str) -> Select[Document]:
    """The newest first, behind the one that `cursor` names."""
    rows = select(Document).order_by(Document.created_at.desc(), Document.id.desc()).limit(ROWS)
    if state:
        rows = rows.where(Document.status == state)
    if name:
        rows = rows.where(Document.document_id == name)
    if cursor:
        rows = rows.where(tuple_(Document.created_at, Document.id) < tuple_(*_place(cursor)))
    return rows


def _place(cursor: str) -> tuple[datetime, str]:
    at, _, name = cursor.partition("_")
    try:
        when = datetime.fromisoformat(at)
    except ValueError:
        raise Refused("cursor takes what the last page gave") from None
    if not (name and name.isprintable()):
        raise Refused("cursor takes what the last page gave")
    return when if when.tzinfo else when.replace(tzinfo=UTC), name
