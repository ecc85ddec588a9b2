"""Documents: list with progress, one document with its timeline, and the download."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox import queries
from inbox.store import Store
from settings import Settings
from tasks.models import DocumentStep
from web.downloads import Reader
from web.errors import HttpError
from web.queries.document_content import find_document, send_content
from web.queries.documents import STATES, load_page

ROWS, TIMELINE_ROWS = 50, 200


def register(pages: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/documents, /console/documents/<id> and its content"""

    @pages.get("/documents")
    def documents() -> ResponseReturnValue:
        name = request.args.get("q", "").strip()
        if name and find_document(sessions, name):
            return redirect(url_for("console.document", document=name))
        with sessions() as db:
            rows, cursor = load_page(db, request.args, ROWS)
        params = {"state": request.args.get("state", ""), "q": name}
        return render_template("documents.html", documents=rows, states=STATES, params=params, cursor=cursor)

    @pages.get("/documents/<document>")
    def document(document: str) -> str:
        row = find_document(sessions, document)
        if row is None and queries.find_event(store, "api", document) is None:
            raise HttpError("No such document.", 404)
        steps = select(DocumentStep).where(DocumentStep.document == document)
        with sessions() as db:
            timeline = db.scalars(steps.order_by(DocumentStep.id.desc()).limit(TIMELINE_ROWS)).all()
        return render_template("document.html", id=document, document=row, timeline=timeline)

    @pages.get("/documents/<document>/content")
    def document_content(document: str) -> Response:
        reader = Reader(g.person.name, has_key=True)
        return send_content(settings, sessions, document, "No such document, or it is not completed yet.", reader)
