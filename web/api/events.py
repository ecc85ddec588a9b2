"""`/api/v1/events`, `/jobs` and `/audit`: what arrived, its jobs, replays and discards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, g, request
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.job import JobState
from inbox.store import Store
from settings import Settings
from web import redact
from web.api import inputs, schemas
from web.api.operation import operation
from web.body import parse_json, read_body
from web.errors import HttpError
from web.queries import audit_log, filters
from web.queries.timeline import load_follow_ups, parents_of

NO_EVENT, NO_JOB = "no such event", "no such job"


def register(api: Blueprint, settings: Settings, store: Store, sessions: Callable[[], Session]) -> None:
    """Events with their jobs and attempts, dead letters, and the audit log."""

    @api.get("/events")
    @operation("Search events, the newest first", schemas.EventPage, query=inputs.EventQuery)
    def list_events() -> schemas.EventPage:
        page = _search("events", request.args)
        events = (queries.find_event(store, row["source"], row["id"]) for row in page.rows)
        return schemas.EventPage.model_validate({"events": filter(None, events), "cursor": page.cursor})

    @api.get("/events/<source>/<path:event_id>")
    @operation("Show an event with its jobs and its payload", schemas.EventDetail, errors={404: NO_EVENT})
    def show_event(source: str, event_id: str) -> schemas.EventDetail:
        event = _found(queries.find_event(store, source, event_id), NO_EVENT)
        parents = parents_of(event["jobs"], load_follow_ups(sessions, event["jobs"]))
        for job in event["jobs"]:
            job["parent"] = parents.get(job["id"])
        body = queries.find_body(store, source, event_id)
        payload = None if body is None else redact.redact_json(body, settings.redact_fields)
        return schemas.EventDetail.model_validate(event | {"payload": payload})

    @api.post("/events/<source>/<path:event_id>/replay")
    @operation("Replay the jobs of an event", schemas.EventReplayed, errors={404: NO_EVENT}, scope="replay")
    def replay_event(source: str, event_id: str) -> schemas.EventReplayed:
        event = _found(queries.find_event(store, source, event_id), NO_EVENT)
        return schemas.EventReplayed(
            replayed={job["id"]: audit_log.replay(store, job["id"], g.who) for job in event["jobs"]}
        )

    @api.get("/jobs")
    @operation("Search the jobs of one state", schemas.JobPage, query=inputs.JobQuery)
    def list_jobs() -> schemas.JobPage:
        """Unfinished jobs come in the order of their due times, others newest first."""
        state = request.args.get("state")
        if state not in list(JobState):
            raise HttpError(f"state must be one of {', '.join(JobState)}")
        page = _search(state, {name: value for name, value in request.args.items() if name != "state"})
        found = (queries.find_job(store, row["id"]) for row in page.rows)
        jobs = [job for job in found if job and job["state"] == state]
        return schemas.JobPage.model_validate({"jobs": jobs, "cursor": page.cursor})

    @api.get("/jobs/<path:job_id>")
    @operation("Show a job with its attempts", schemas.Job, errors={404: NO_JOB})
    def show_job(job_id: str) -> schemas.Job:
        return schemas.Job.model_validate(_found(queries.find_job(store, job_id), NO_JOB))

    @api.post("/jobs/<path:job_id>/replay")
    @operation(
        "Replay a job",
        schemas.JobReplayed,
        errors={404: NO_JOB, 409: "it is unfinished, or its payload is deleted"},
        scope="replay",
    )
    def replay_job(job_id: str) -> schemas.JobReplayed:
        _require(audit_log.replay(store, job_id, g.who), "replayed")
        return schemas.JobReplayed(replayed=job_id)

    @api.post("/jobs/<path:job_id>/discard")
    @operation(
        "Discard a dead letter. It can still be replayed",
        schemas.JobDiscarded,
        errors={404: NO_JOB, 409: "it is not dead"},
        body=inputs.DiscardRequest,
        scope="replay",
    )
    def discard_job(job_id: str) -> schemas.JobDiscarded:
        reason = filters.parse_reason(
            parse_json(inputs.DiscardRequest, read_body(request, inputs.MAX_BODY_BYTES)).reason
        )
        _require(audit_log.discard(store, job_id, g.who, reason), "discarded")
        return schemas.JobDiscarded(discarded=job_id)

    @api.get("/audit")
    @operation("List the audit log: replays and discards, the newest first", schemas.AuditLog, query=inputs.PageQuery)
    def list_audit_log() -> schemas.AuditLog:
        limit = filters.parse_limit(request.args, inputs.MAX_ROWS)
        return schemas.AuditLog.model_validate({"audit": queries.list_audit_log(store, limit)})

    def _search(of: str, params: Mapping[str, str]) -> find.Page:
        limit = filters.parse_limit(params, inputs.MAX_ROWS)
        return find.search(store, of, filters.parse_filter(params), limit, filters.parse_cursor(params))


def _require(result: str, wanted: str) -> None:
    if result != wanted:
        raise HttpError(f"not {wanted}: {result}", 404 if result == "unknown" else 409)


def _found(row: dict[str, Any] | None, error: str) -> dict[str, Any]:
    if row is None:
        raise HttpError(error, 404)
    return row
