"""Replay all dead letters that match a filter: dry run, start, progress."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from sqlalchemy.orm import Session

from inbox.store import Store
from web.console.search import search_params
from web.queries import bulk_replays, filters


def register(pages: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """/console/replays"""

    @pages.get("/replays/new")
    def dry_run() -> str:
        query = bulk_replays.require_dead(filters.parse_filter(request.args))
        return render_template("dry_run.html", preview=bulk_replays.preview(store, query), params=search_params())

    @pages.post("/replays")
    def start_replay() -> ResponseReturnValue:
        query = bulk_replays.require_dead(filters.parse_filter(request.form))
        return redirect(url_for("console.replay", replay=bulk_replays.request_replay(store, query, g.person.name)))

    @pages.get("/replays/<replay>")
    def replay(replay: str) -> str:
        return render_template("replay.html", replay=bulk_replays.load_progress(store, sessions, replay))
