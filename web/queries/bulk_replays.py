"""Bulk replays of dead letters: preview, request, progress. tasks/bulk_replays.py runs them."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.event import Event
from inbox.find import Filter
from inbox.store import Store
from tasks import broker
from tasks.models import Replay
from tasks.routes import jobs_for
from web.errors import HttpError
from web.queries.times import iso

log = structlog.get_logger()

SOURCE, EVENT_TYPE = "holdfast", "replay.asked"
PREVIEW_SEARCHES = 10  # of a dry run: about half a second
SAMPLE_ROWS = 20


@dataclass(slots=True)
class Preview:
    """What a replay would do: how many match, of how many that were looked through; `whole` if those are all. Asked
    for with the same `until` (ms), it does that, and leaves what dies meanwhile."""

    until: int
    matching: int = 0
    looked: int = 0
    dead: int = 0
    whole: bool = False
    tasks: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sample: list[dict[str, Any]] = field(default_factory=list)


def require_dead(wanted: Filter) -> Filter:
    """Raises Refused where the filter names another state: what succeeded has had its effect."""
    if wanted.state not in ("", "dead"):
        raise HttpError("state takes dead: only dead letters are replayed by a filter, others one by one")
    return replace(wanted, state="")


def preview(store: Store, wanted: Filter) -> Preview:
    """Look without touching anything."""
    wanted = _until_now(store, wanted)
    to_json, place = Preview(until=wanted.until or 0, dead=queries.stats(store)["dead"]), ""
    for _ in range(PREVIEW_SEARCHES):
        step = find.search(store, "dead", wanted, 10_000, place)
        to_json.matching, to_json.looked = to_json.matching + len(step.rows), to_json.looked + step.scanned
        to_json.tasks.update(row["task"] for row in step.rows)
        to_json.reasons.update(row.get("reason") or "" for row in step.rows)
        to_json.sample = (to_json.sample + step.rows)[:SAMPLE_ROWS]
        if step.cursor is None:
            to_json.whole = True
            break
        place = step.cursor
    return to_json


def request_replay(store: Store, wanted: Filter, by: str) -> str:
    """Have all that match now run again; durable when this returns. Answers the replay's id."""
    now = store.now_ms()
    wanted = _until_now(store, wanted)
    replay = f"replay:{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%dT%H:%M:%S}-{secrets.token_hex(2)}"
    event = Event(SOURCE, replay, EVENT_TYPE, json.dumps({"by": by, "wanted": asdict(wanted)}).encode())
    broker.ring(store.record(event, jobs_for(SOURCE, replay, EVENT_TYPE), counted="due") or ())
    log.info("replay asked for", replay=replay, by=by)
    return replay


def _until_now(store: Store, wanted: Filter) -> Filter:
    """What dies later is not meant."""
    now = store.now_ms()
    return replace(wanted, until=min(wanted.until or now, now))


def load_progress(store: Store, sessions: Callable[[], Session], replay: str) -> dict[str, Any]:
    """How far it is; before a worker has begun it, all zero. Raises Refused, 404."""
    with sessions() as db:
        row = db.get(Replay, replay) if "\0" not in replay else None
    if row:
        return to_json(row)
    if (event := queries.find_event(store, SOURCE, replay)) is None:
        raise HttpError("no such replay", 404)
    asked = datetime.fromtimestamp(event["received"] / 1000, UTC).isoformat()
    body = json.loads(queries.find_body(store, SOURCE, replay) or b"{}")
    none: dict[str, Any] = {"total": 0, "looked": 0, "replayed": 0, "skipped": 0, "finished_at": None}
    return {"id": replay, "state": "asked", "by": body.get("by"), "filter": {}, "created_at": asked, **none}


def load_newest(sessions: Callable[[], Session], most: int) -> list[dict[str, Any]]:
    """The last that were begun."""
    with sessions() as db:
        return [to_json(row) for row in db.scalars(select(Replay).order_by(Replay.created_at.desc()).limit(most))]


def to_json(row: Replay) -> dict[str, Any]:
    """A replay as the API and the console tell of it."""
    return {
        "id": row.id,
        "state": "finished" if row.finished_at else "running",
        "by": row.by,
        "filter": {name: value for name, value in row.wanted.items() if value not in (None, "")},
        "total": row.total,
        "looked": row.looked,
        "replayed": row.replayed,
        "skipped": row.skipped,
        "created_at": row.created_at.isoformat(),
        "finished_at": iso(row.finished_at),
    }
