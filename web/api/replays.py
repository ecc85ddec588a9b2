"""`/api/v1/replays`: dead letters that match a filter, run again; or, with dry_run, only told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from inbox.store import Store
from web.body import parse_json, read_body
from web.queries import bulk_replays, filters

MOST = 200  # rows in one answer
MOST_BYTES = 16 * 1024


class ReplayRequest(BaseModel):
    """`POST /api/v1/replays`: as `GET /api/v1/events`, but times are those of death, and q matches reasons too."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = ""
    type: str = ""
    state: str = ""
    q: str = ""
    customer: str = ""
    since: str | int = ""
    until: str | int = ""
    dry_run: bool = False


def register(api: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """`POST` and `GET /api/v1/replays`, and `GET /api/v1/replays/<replay>`"""

    @api.post("/replays")
    def replay() -> tuple[Response, int]:
        given = parse_json(ReplayRequest, read_body(request, MOST_BYTES))
        texts = {name: str(value) for name, value in given.model_dump(exclude={"dry_run"}).items()}
        wanted = bulk_replays.require_dead(filters.parse_filter(texts))
        if given.dry_run:
            return jsonify(_told(bulk_replays.preview(store, wanted))), 200
        return jsonify(id=bulk_replays.request_replay(store, wanted, g.who), state="requested"), 202

    @api.get("/replays")
    def list_replays() -> Response:
        """Those that a worker has begun, the newest first."""
        return jsonify(replays=bulk_replays.load_newest(sessions, filters.parse_limit(request.args, MOST)))

    @api.get("/replays/<replay>")
    def show_replay(replay: str) -> Response:
        return jsonify(bulk_replays.load_progress(store, sessions, replay))


def _told(forecast: bulk_replays.Preview) -> dict[str, Any]:
    return {
        "dry_run": True,
        "matching": forecast.matching,
        "scanned": forecast.scanned,
        "complete": forecast.complete,
        "until": forecast.until,
        "tasks": dict(forecast.tasks.most_common()),
        "reasons": dict(forecast.reasons.most_common(50)),
    }
