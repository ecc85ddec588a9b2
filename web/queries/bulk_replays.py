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
from inbox.find import Filter
from inbox.store import Store
from tasks.models import Replay
from tasks.own_events import record_own_event
from tasks.routes import OWN_SOURCE
from web.errors import HttpError
from web.times import iso

log = structlog.get_logger()

EVENT_TYPE = "replay.asked"
PREVIEW_SEARCHES = 10  # about half a second
SAMPLE_ROWS = 20


@dataclass(slots=True)
class Preview:
    """What a replay would do: how many dead letters match, of how many scanned.

    `complete` is False if the preview stopped before it had scanned all. A replay with the same `until` (ms since 1970)
    does not touch jobs that die after the preview.
    """

    until: int
    matching: int = 0
    scanned: int = 0
    dead: int = 0
    complete: bool = False
    tasks: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sample: list[dict[str, Any]] = field(default_factory=list)


def require_dead(query: Filter) -> Filter:
    """The filter without its state. Raises HttpError if that is not `dead`: a succeeded job has had its effect."""
    if query.state not in ("", "dead"):
        raise HttpError("state must be dead: a filter replays dead letters only; replay other jobs one by one")
    return replace(query, state="")


def preview(store: Store, query: Filter) -> Preview:
    """Count the dead letters that match, without a change."""
    query = _until_now(store, query)
    result, cursor = Preview(until=query.until or 0, dead=queries.stats(store)["dead"]), ""
    for _ in range(PREVIEW_SEARCHES):
        step = find.search(store, "dead", query, 10_000, cursor)
        result.matching, result.scanned = result.matching + len(step.rows), result.scanned + step.scanned
        result.tasks.update(row["task"] for row in step.rows)
        result.reasons.update(row.get("reason") or "" for row in step.rows)
        result.sample = (result.sample + step.rows)[:SAMPLE_ROWS]
        if step.cursor is None:
            result.complete = True
            break
        cursor = step.cursor
    return result


def request_replay(store: Store, query: Filter, by: str) -> str:
    """Record a request to replay all dead letters that match now; returns its id. The request is then durable."""
    now = store.now_ms()
    query = _until_now(store, query)
    replay = f"replay:{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%dT%H:%M:%S}-{secrets.token_hex(2)}"
    record_own_event(store, replay, EVENT_TYPE, {"by": by, "wanted": asdict(query)})
    log.info("bulk replay requested", replay=replay, by=by)
    return replay


def _until_now(store: Store, query: Filter) -> Filter:
    """The filter, limited to jobs that are dead by now."""
    now = store.now_ms()
    return replace(query, until=min(query.until or now, now))


def load_progress(store: Store, sessions: Callable[[], Session], replay: str) -> dict[str, Any]:
    """The replay as JSON; all counts are zero until a worker starts it. Raises HttpError, 404, if unknown."""
    with sessions() as db:
        row = db.get(Replay, replay) if "\0" not in replay else None  # Postgres refuses a NUL in a query
    if row:
        return to_json(row)
    if (event := queries.find_event(store, OWN_SOURCE, replay)) is None:
        raise HttpError("no such replay", 404)
    body = json.loads(queries.find_body(store, OWN_SOURCE, replay) or b"{}")
    created_at = datetime.fromtimestamp(event["received"] / 1000, UTC)
    return to_json(Replay(id=replay, by=body.get("by"), filter={}, created_at=created_at)) | {"state": "requested"}


def load_newest(sessions: Callable[[], Session], limit: int) -> list[dict[str, Any]]:
    """The newest replays that a worker has started, as JSON."""
    with sessions() as db:
        return [to_json(row) for row in db.scalars(select(Replay).order_by(Replay.created_at.desc()).limit(limit))]


def to_json(row: Replay) -> dict[str, Any]:
    """A replay, as the API and the console show it."""
    return {
        "id": row.id,
        "state": "finished" if row.finished_at else "running",
        "by": row.by,
        "filter": {name: value for name, value in row.filter.items() if value not in (None, "")},
        "total": row.total or 0,
        "scanned": row.scanned or 0,
        "replayed": row.replayed or 0,
        "skipped": row.skipped or 0,
        "created_at": row.created_at.isoformat(),
        "finished_at": iso(row.finished_at),
    }
