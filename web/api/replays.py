"""`/api/v1/replays`: replay all dead letters that match a filter, or preview that with `dry_run`."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, g, request
from sqlalchemy.orm import Session

from inbox.store import Store
from web.api import inputs, schemas
from web.api.operation import operation
from web.body import parse_json, read_body
from web.queries import bulk_replays, filters


def register(api: Blueprint, store: Store, sessions: Callable[[], Session]) -> None:
    """`POST` and `GET /api/v1/replays`, and `GET /api/v1/replays/<replay>`"""

    @api.post("/replays")
    @operation(
        "Replay all dead letters that match, or preview that with dry_run",
        {202: schemas.Requested, 200: schemas.ReplayPreview},
        body=inputs.ReplayRequest,
        scope="replay",
    )
    def replay() -> schemas.Requested | tuple[schemas.ReplayPreview, int]:
        body = parse_json(inputs.ReplayRequest, read_body(request, inputs.MAX_BODY_BYTES))
        texts = {name: str(value) for name, value in body.model_dump(exclude={"dry_run"}).items()}
        query = bulk_replays.require_dead(filters.parse_filter(texts))
        if body.dry_run:
            return _to_model(bulk_replays.preview(store, query)), 200
        return schemas.Requested(id=bulk_replays.request_replay(store, query, g.who), state="requested")

    @api.get("/replays")
    @operation("List the replays that have started, the newest first", schemas.ReplayList, query=inputs.PageQuery)
    def list_replays() -> schemas.ReplayList:
        limit = filters.parse_limit(request.args, inputs.MAX_ROWS)
        return schemas.ReplayList.model_validate({"replays": bulk_replays.load_newest(sessions, limit)})

    @api.get("/replays/<replay>")
    @operation("Show the progress of a replay", schemas.Replay, errors={404: "no such replay"})
    def show_replay(replay: str) -> schemas.Replay:
        return schemas.Replay.model_validate(bulk_replays.load_progress(store, sessions, replay))


def _to_model(preview: bulk_replays.Preview) -> schemas.ReplayPreview:
    return schemas.ReplayPreview(
        dry_run=True,
        matching=preview.matching,
        scanned=preview.scanned,
        complete=preview.complete,
        until=preview.until,
        tasks=dict(preview.tasks.most_common()),
        reasons=dict(preview.reasons.most_common(50)),
    )
