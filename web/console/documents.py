"""Documents: list with progress, one document with its timeline, and the download."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from settings import Settings
from tasks.models import Document, DocumentStep
from web.api.blueprint import completed, content
from web.errors import HttpError
from web.queries.documents import STATES, load_page

ROWS, TIMELINE_ROWS = 50, 200


def register(pages: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/documents, /console/documents/<id> and its content"""

    @pages.get("/documents")
    def documents() -> ResponseReturnValue:
        name = request.args.get("q", "").strip()
        with sessions() as db:
            if name.isprintable() and name and db.get(Document, name) is not None:
                return redirect(url_for("console.document", document=name))
            rows, cursor = load_page(db, request.args, ROWS)
        params = {"state": request.args.get("state", ""), "q": name}
        return render_template("documents.html", documents=rows, states=STATES, params=params, cursor=cursor)

    @pages.get("/documents/<document>")
    def document(document: str) -> str:
        if not document.isprintable():  # Postgres rejects NUL in a text, even in a query
            raise HttpError("No such document.", 404)
        with sessions() as db:
            row = db.get(Document, document)
            steps = select(DocumentStep).where(DocumentStep.document == document)
            timeline = db.scalars(steps.order_by(DocumentStep.id.desc()).limit(TIMELINE_ROWS)).all()
        if row is None and queries.find_event(store, "api", document) is None:
            raise HttpError("No such document.", 404)
        return render_template("document.html", id=document, document=row, timeline=timeline)

    @pages.get("/documents/<document>/content")
    def document_content(document: str) -> Response:
        return content(settings, *completed(sessions, document, "No such document, or it is not completed yet."))
