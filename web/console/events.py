"""Events: searched, and one of them with all that became of it."""

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
from web.errors import Refused
from web.queries import filters
from web.queries.filters import SEARCH
from web.queries.redact import payload
from web.queries.timeline import effects, grown, moments

ROWS, MOMENTS = 50, 200
TYPES = sorted({kind for _, kind in ROUTES if kind != "*"})


def names(sources: Collection[str]) -> list[str]:
    """Of every source that an event may have."""
    return sorted({source for source, _ in ROUTES}.union(sources))


def register(
    pages: Blueprint, settings: Settings, sources: Collection[str], store: Store, sessions: Callable[[], Session]
) -> None:
    """/console/events and what is below it."""

    @pages.get("/events")
    def events() -> ResponseReturnValue:
        wanted = filters.wanted(request.args)
        if exact := _exact(store, wanted, names(sources)):
            return redirect(url_for("console.event", source=exact, event_id=wanted.text))
        found = find.search(store, "events", wanted, ROWS, filters.place(request.args))
        return render_template("events.html", found=found, given=given(), states=STATES)

    @pages.get("/events/<source>/<path:event_id>")
    def event(source: str, event_id: str) -> str:
        one = queries.event(store, source, event_id)
        if one is None:
            raise Refused("No such event, or it has aged away.", 404)
        body = queries.body(store, source, event_id)
        return render_template(
            "event.html",
            event=one,
            payload=payload(body, settings.redact_fields) if body else None,
            hidden=settings.redact_fields,
            tree=grown(one["jobs"], effects(sessions, one["jobs"])),  # side by side while the database is away
            moments=moments(one)[-MOMENTS:],
        )


def given() -> dict[str, str]:
    """What was searched for: the form shows it again, and the next page repeats it."""
    return {name: value for name, value in request.args.items() if value and name in SEARCH}


def _exact(store: Store, wanted: Filter, sources: list[str]) -> str | None:
    """The source of the event whose whole id was asked for: that is a look or two, and no search."""
    if not wanted.text:
        return None
    asked_for = [wanted.source] if wanted.source else sources
    return next((source for source in asked_for if queries.event(store, source, wanted.text)), None)
