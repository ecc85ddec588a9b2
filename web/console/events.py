"""Events: search, and one event with its jobs, timeline and payload."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.find import STATES, Filter
from inbox.store import Store
from settings import Settings
from tasks.routes import ROUTES
from web.console.search import search_params
from web.errors import HttpError
from web.queries import filters
from web.queries.timeline import build_job_tree, build_timeline, load_follow_ups
from web.redact import redact_to_text

ROWS, TIMELINE_ROWS = 50, 200
TYPES = sorted({kind for _, kind in ROUTES if kind != "*"})


def source_names(configured: Collection[str]) -> list[str]:
    """Every source that an event can have: the configured ones and those with a route."""
    return sorted({source for source, _ in ROUTES}.union(configured))


def register(
    pages: Blueprint, settings: Settings, configured: Collection[str], store: Store, sessions: Callable[[], Session]
) -> None:
    """/console/events and /console/events/<source>/<id>"""

    @pages.get("/events")
    def events() -> ResponseReturnValue:
        query = filters.parse_filter(request.args)
        if source := _source_of_id(store, query, source_names(configured)):
            return redirect(url_for("console.event", source=source, event_id=query.text))
        found = find.search(store, "events", query, ROWS, filters.parse_cursor(request.args))
        return render_template("events.html", found=found, params=search_params(), states=STATES)

    @pages.get("/events/<source>/<path:event_id>")
    def event(source: str, event_id: str) -> str:
        row = queries.find_event(store, source, event_id)
        if row is None:
            raise HttpError("No such event. It may have been deleted after RETENTION_DAYS.", 404)
        body = queries.find_body(store, source, event_id)
        return render_template(
            "event.html",
            event=row,
            payload=redact_to_text(body, settings.redact_fields) if body else None,
            redact_fields=settings.redact_fields,
            tree=build_job_tree(row["jobs"], load_follow_ups(sessions, row["jobs"])),
            timeline=build_timeline(row)[-TIMELINE_ROWS:],
        )


def _source_of_id(store: Store, query: Filter, names: list[str]) -> str | None:
    """The source of the event if the search text is a complete event id: a direct lookup instead of a search."""
    if not query.text:
        return None
    candidates = [query.source] if query.source else names
    return next((source for source in candidates if queries.find_event(store, source, query.text)), None)
