"""/console: server-rendered pages for operators. console.js refreshes them and adds shortcut keys; every page works
without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from flask import Blueprint, Response, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from werkzeug.exceptions import HTTPException

from inbox.ended_sessions import EndedSessions
from inbox.errors import StoreUnavailable
from inbox.store import Store
from settings import Settings
from web.auth import RateLimit, require_scope
from web.console import (
    agents,
    audit,
    customers,
    dead_letters,
    documents,
    events,
    jinja_filters,
    overview,
    replays,
    sign_in,
    sources,
    subscriptions,
)
from web.errors import HttpError
from web.receiver.sources import Source

log = structlog.get_logger()

SIGN_IN_PATH = "/console/sign-in"
MAX_FORM_BYTES = 512 * 1024  # a page of selected jobs, each with an id of up to 800 characters

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
PUBLIC_ENDPOINTS = ("console.sign_in", "console.static")


def blueprint(
    settings: Settings,
    configured: Mapping[str, Source],
    store: Store,
    sessions: Callable[[], Session],
    *,
    rate_limit: RateLimit,
    ended: EndedSessions,
) -> Blueprint:
    """All console pages. Every page except the sign-in page requires a session of a key with the page's scope."""
    pages = Blueprint("console", __name__, url_prefix="/console", template_folder="templates", static_folder="static")

    @pages.before_request
    def require_session() -> ResponseReturnValue | None:
        request.max_content_length = MAX_FORM_BYTES
        if request.endpoint not in PUBLIC_ENDPOINTS:
            if not sign_in.load_person(settings.api_keys, ended):
                return_to = request.full_path if request.method == "GET" else ""
                return redirect(url_for("console.sign_in", next=return_to or None))
            rate_limit.count(g.person.name, time.monotonic())
            require_scope(g.person.key, _scope())
        if request.method == "POST":
            sign_in.check_form()
        return None

    @pages.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        if request.endpoint != "console.static":
            response.headers["Cache-Control"] = "no-store"  # the pages show business data
        return response

    @pages.context_processor
    def common_values() -> dict[str, Any]:
        names = events.source_names(configured)
        return {"flower": settings.flower_url, "source_names": names, "event_types": events.TYPES}

    @pages.get("/<path:_>")
    def not_found(_: str) -> str:
        raise HttpError("This page does not exist.", 404)

    _register_error_pages(pages)
    jinja_filters.register(pages)
    sign_in.register(pages, settings, store, ended)
    overview.register(pages, store)
    events.register(pages, settings, configured, store, sessions)
    dead_letters.register(pages, store)
    replays.register(pages, store, sessions)
    audit.register(pages, store, sessions)
    documents.register(pages, settings, store, sessions)
    subscriptions.register(pages, sessions)
    customers.register(pages, sessions)
    agents.register(pages, store, sessions)
    sources.register(pages, settings, configured, store, sessions)
    return pages


def _scope() -> str:
    """What the request's key must have."""
    if request.method == "POST" and request.endpoint not in ("console.sign_out", "console.find_customer"):
        return "admin" if request.endpoint == "console.change_agent_state" else "replay"
    return "read"


def _register_error_pages(pages: Blueprint) -> None:
    """Show errors as HTML pages; outside the console they are JSON (web/errors.py)."""

    @pages.errorhandler(HttpError)
    def refused(error: HttpError) -> ResponseReturnValue:
        return _error_page(str(error), error.status)

    @pages.errorhandler(StoreUnavailable)
    def store_unavailable(error: StoreUnavailable) -> ResponseReturnValue:
        text = f"The store is unavailable: {error}. Until it is back, webhooks are answered with 503 and their"
        return _error_page(f"{text} senders retry them. No accepted event is lost.", 503)

    @pages.errorhandler(OperationalError)
    def database_unavailable(error: OperationalError) -> ResponseReturnValue:
        log.warning("database unavailable", error=type(error.orig).__name__)
        return _error_page("The database is unavailable. Webhooks are still accepted.", 503)

    @pages.errorhandler(Exception)
    def unexpected(error: Exception) -> ResponseReturnValue:
        log.error("unexpected error", error=type(error).__name__, exc_info=error)
        return _error_page("Unexpected error. Details are in the receiver's log.", 500)

    @pages.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> ResponseReturnValue:
        return _error_page(error.description or error.name, error.code or 500)


def _error_page(message: str, status: int) -> ResponseReturnValue:
    return render_template("error.html", message=message, status=status), status
