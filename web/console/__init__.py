"""/console: for people. Server-rendered pages; console.js only renews them and adds keys, and all works without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from flask import Blueprint, Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from inbox.errors import StoreUnavailable
from inbox.store import Store
from settings import Settings
from web.console import agents, dead, documents, dunning, events, jinja_filters, overview, senders, sign_in
from web.errors import Refused
from web.receiver.sources import Source

log = structlog.get_logger()

MOST_FORM_BYTES = 512 * 1024  # a page of ticked jobs, each id of up to 800 characters

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
OPEN = ("console.sign_in", "console.static")  # to whoever has not signed in


def blueprint(
    settings: Settings, sources: Mapping[str, Source], store: Store, sessions: Callable[[], Session]
) -> Blueprint:
    """Every page of the console, behind one gate."""
    pages = Blueprint("console", __name__, url_prefix="/console", template_folder="templates", static_folder="static")

    @pages.before_request
    def gate() -> ResponseReturnValue | None:
        request.max_content_length = MOST_FORM_BYTES
        if request.endpoint not in OPEN and not sign_in.recognised(settings.api_keys):
            back = request.full_path if request.method == "GET" else ""
            return redirect(url_for("console.sign_in", next=back or None))
        if request.method == "POST":
            sign_in.check_form()
        return None

    @pages.after_request
    def seal(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint != "console.static":
            response.headers["Cache-Control"] = "no-store"  # it shows what is nobody else's business
        return response

    @pages.context_processor
    def everywhere() -> dict[str, Any]:
        return {"flower": settings.flower_url, "sources": events.names(sources), "types": events.TYPES}

    @pages.get("/<path:_>")
    def nothing(_: str) -> str:
        raise Refused("There is no such page.", 404)

    _tell_errors(pages)
    jinja_filters.register(pages)
    sign_in.register(pages, settings, store)
    overview.register(pages, store)
    events.register(pages, settings, sources, store, sessions)
    dead.register(pages, store, sessions)
    documents.register(pages, settings, store, sessions)
    dunning.register(pages, sessions)
    agents.register(pages, store, sessions)
    senders.register(pages, settings, sources, store, sessions)
    return pages


def _tell_errors(pages: Blueprint) -> None:
    """Errors as pages, where the rest of the application answers in JSON (web/errors.py)."""

    @pages.errorhandler(Refused)
    def refused(error: Refused) -> ResponseReturnValue:
        return _page(str(error), error.status)

    @pages.errorhandler(StoreUnavailable)
    def no_store(error: StoreUnavailable) -> ResponseReturnValue:
        return _page(f"Senders hear 503 and try again; nothing is lost. What is wrong: {error}.", 503)

    @pages.errorhandler(OperationalError)
    def no_database(error: OperationalError) -> ResponseReturnValue:
        log.warning("the database does not answer", error=type(error.orig).__name__)
        return _page("The database does not answer now. Events are taken all the same.", 503)

    @pages.errorhandler(Exception)
    def unexpected(error: Exception) -> ResponseReturnValue:
        log.error("unexpected error", error=type(error).__name__, exc_info=error)
        return _page("An unexpected error; it has been logged.", 500)

    @pages.errorhandler(HTTPException)
    def http(error: HTTPException) -> ResponseReturnValue:
        return _page(error.description or error.name, error.code or 500)


def _page(words: str, status: int) -> ResponseReturnValue:
    return render_template("error.html", words=words, status=status), status
