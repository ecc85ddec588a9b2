"""Documents: how far each is, and one of them with its time line."""

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
from web.errors import Refused
from web.queries.documents import STATES, page

ROWS = 50


def register(pages: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/documents and what is below it"""

    @pages.get("/documents")
    def documents() -> ResponseReturnValue:
        name = request.args.get("q", "").strip()
        with sessions() as db:
            if name.isprintable() and name and db.get(Document, name) is not None:
                return redirect(url_for("console.document", document=name))
            rows, cursor = page(db, request.args, ROWS)
        given = {"state": request.args.get("state", ""), "q": name}
        return render_template("documents.html", documents=rows, states=STATES, given=given, cursor=cursor)

    @pages.get("/documents/<document>")
    def document(document: str) -> str:
        if not document.isprintable():  # Postgres takes no NUL in a text, not even to look for
            raise Refused("No such document.", 404)
        with sessions() as db:
            row = db.get(Document, document)
            mine = select(DocumentStep).where(DocumentStep.document == document)
            steps = db.scalars(mine.order_by(DocumentStep.id.desc()).limit(200)).all()
        if row is None and queries.event(store, "api", document) is None:
            raise Refused("No such document.", 404)
        return render_template("document.html", id=document, document=row, steps=steps)

    @pages.get("/documents/<document>/content")
    def document_content(document: str) -> Response:
        return content(settings, *completed(sessions, document, "No such document, or it is not complete."))
