"""Bulk replay: run every dead letter that matches a filter again, one page per job.

The request is an event of our own, recorded by web/queries/bulk_replays.py; its body holds filter and requester.
Only jobs that died before the request are replayed: one that dies again in its replay stays dead.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

from msgspec import Struct, field
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.find import Filter
from inbox.job import JobState
from inbox.store import Store
from tasks import broker
from tasks.db.locking import select_for_update, upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, next_page, page_number
from tasks.models import Replay
from tasks.payloads import parse
from tasks.routes import BULK_REPLAY

PAGE_SIZE = 100


class Request(Struct):
    """The body of the request's event. `filter.until` is always set."""

    by: str
    filter: Filter = field(name="wanted")


def replay_page(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Replay one page of dead letters.

    The page's job ids are committed before any is replayed, so a retry after a crash replays the same ids.
    """
    request = parse(attempt.event.body, Request)
    store = broker.open_store(attempt.settings, timeout_seconds=5)
    with closing(store.client):
        page = _plan_page(attempt, db, store, request)
        with outside_transaction(db):
            replayed = sum(_replay(store, job, request, attempt.event.id) for job in page)
    return _finish_page(attempt, db, replayed, len(page) - replayed)


def _plan_page(attempt: Attempt, db: Session, store: Store, request: Request) -> list[str]:
    """The job ids of this page; empty if another worker has finished it."""
    values = {"by": request.by, "filter": asdict(request.filter), "created_at": attempt.now}
    row, _ = upsert_locked(db, Replay, id=attempt.event.id, total=find.count_dead(store, request.filter), **values)
    if row.pages != page_number(attempt) - 1:
        return []
    if not row.planned:
        found = find.search(store, "dead", request.filter, PAGE_SIZE, row.cursor)
        row.page, row.cursor, row.planned = [letter["id"] for letter in found.rows], found.cursor or "", True
        row.scanned += found.scanned
    return list(row.page)


def _replay(store: Store, job: str, request: Request, request_id: str) -> bool:
    """Replay one dead letter. True if it runs again, or an earlier attempt of this page has replayed it; else False."""
    found = queries.find_job(store, job)
    if found and found["state"] == JobState.DEAD and (found["finished"] or 0) > (request.filter.until or 0):
        return True  # replayed by an earlier attempt, and dead again since
    bells = store.replay(job, f"{request.by}, {request_id}", only=JobState.DEAD)
    if isinstance(bells, str):
        return bells in ("unfinished", JobState.SUCCEEDED)
    broker.ring(bells)
    return True


def _finish_page(attempt: Attempt, db: Session, replayed: int, skipped: int) -> list[FollowUp]:
    """Record the page as done, in the transaction of the effect row; return the job of the next page, if any."""
    row = select_for_update(db, Replay, attempt.event.id)
    if row is None or row.pages != page_number(attempt) - 1:
        return []  # our lease expired, and another worker has finished this page
    row.replayed += replayed
    row.skipped += skipped
    row.pages, row.page, row.planned = page_number(attempt), [], False
    if not row.cursor:
        row.finished_at = attempt.now
        return []
    return [next_page(attempt, BULK_REPLAY)]
