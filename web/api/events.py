"""Events and jobs under `/api/v1`: what arrived and what became of it; run again, or put away, and by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.job import JobState
from inbox.store import Store
from settings import Settings
from web.body import parse_json, read_body
from web.errors import HttpError
from web.queries import actions, filters, redact
from web.queries.timeline import load_follow_ups, parents_of

MOST = 200  # rows in one answer
MOST_BYTES = 16 * 1024


class DiscardRequest(BaseModel):
    """`POST /api/v1/jobs/<id>/discard`: `reason` is for the audit log."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str = Field(min_length=1, max_length=300)


def register(api: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    """Events, each with its jobs and their attempts; and the dead letters."""

    @api.get("/events")
    def list_events() -> Response:
        """What matches, the newest first. A search through many may find less than a page, and still go on."""
        found = _found_by("events", request.args)
        shown = (queries.find_event(store, row["source"], row["id"]) for row in found.rows)
        return jsonify(events=[event for event in shown if event], cursor=found.cursor)

    @api.get("/events/<source>/<path:event_id>")
    def show_event(source: str, event_id: str) -> Response:
        """With the payload as people may see it, and of each job from which one it follows."""
        event = _there(queries.find_event(store, source, event_id), "event")
        parents = parents_of(event["jobs"], load_follow_ups(sessions, event["jobs"]))
        for job in event["jobs"]:
            job["parent"] = parents.get(job["id"])
        body = queries.find_body(store, source, event_id)
        return jsonify(event | {"payload": None if body is None else redact.redact_json(body, settings.redact_fields)})

    @api.post("/events/<source>/<path:event_id>/replay")
    def replay_event(source: str, event_id: str) -> Response:
        event = _there(queries.find_event(store, source, event_id), "event")
        return jsonify(replayed={job["id"]: actions.replay(store, job["id"], g.who) for job in event["jobs"]})

    @api.get("/jobs")
    def list_jobs() -> Response:
        """The matching jobs of one state, paged as `GET /api/v1/events`. Unfinished jobs come in the order of their due
        times, others newest first. `since` and `until` limit the due time, the time of death, or of the event."""
        state = request.args.get("state")
        if state not in list(JobState):
            raise HttpError(f"state must be one of {', '.join(JobState)}")
        found = _found_by(state, {name: value for name, value in request.args.items() if name != "state"})
        jobs = (queries.find_job(store, row["id"]) for row in found.rows)
        return jsonify(jobs=[job for job in jobs if job and job["state"] == state], cursor=found.cursor)

    @api.get("/jobs/<path:job_id>")
    def show_job(job_id: str) -> Response:
        return jsonify(_there(queries.find_job(store, job_id), "job"))

    @api.post("/jobs/<path:job_id>/replay")
    def replay_job(job_id: str) -> Response:
        _done(actions.replay(store, job_id, g.who), "replayed")
        return jsonify(replayed=job_id)

    @api.post("/jobs/<path:job_id>/discard")
    def discard_job(job_id: str) -> Response:
        reason = filters.parse_reason(parse_json(DiscardRequest, read_body(request, MOST_BYTES)).reason)
        _done(actions.discard(store, job_id, g.who, reason), "discarded")
        return jsonify(discarded=job_id)

    @api.get("/audit")
    def list_audit_log() -> Response:
        """What people have done, the newest first."""
        return jsonify(audit=queries.list_audit_log(store, filters.parse_limit(request.args, MOST)))

    def _found_by(of: str, params: Mapping[str, str]) -> find.Page:
        limit = filters.parse_limit(params, MOST)
        return find.search(store, of, filters.parse_filter(params), limit, filters.parse_cursor(params))


def _done(word: str, wanted: str) -> None:
    if word != wanted:
        raise HttpError(f"not {wanted}: {word}", 404 if word == "unknown" else 409)


def _there(row: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if row is None:
        raise HttpError(f"no such {what}", 404)
    return row
