"""Run again all dead letters that match a filter: a page of them a job, so that it survives whatever dies.

The request is an event of our own (source `holdfast`), whose body is the filter and who asked; bulk_replays.py records
it. Only what died before it was asked for is run again: what dies of its replay waits for a person once more.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

from msgspec import Struct
from sqlalchemy.orm import Session

from inbox import find, queries
from inbox.find import Filter
from inbox.job import JobState
from inbox.store import Store
from tasks import broker
from tasks.db.locking import select_for_update, upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Replay
from tasks.payloads import parse
from tasks.routes import BULK_REPLAY

PAGE_SIZE = 100


class Request(Struct):
    """What was asked for: `wanted.until` is set."""

    by: str
    wanted: Filter


def replay_page(attempt: Attempt, db: Session) -> list[FollowUp]:
    """One page. It is planned and written down first: who comes after a death in the middle keeps to that plan."""
    asked, number = parse(attempt.event.body, Request), int(attempt.args.get("page", 1))
    store = broker.open_store(attempt.settings, timeout_seconds=5)
    with closing(store.client):
        page = _plan_page(attempt, db, store, asked, number)
        with outside_transaction(db):  # the page's job ids are committed before any is replayed
            words = [_replay(store, job, asked, attempt.event.id) for job in page]
    return _finish_page(attempt, db, number, words)


def _plan_page(attempt: Attempt, db: Session, store: Store, asked: Request, number: int) -> list[str]:
    """The jobs of this page; none if somebody else has done it already."""
    values = {"by": asked.by, "wanted": asdict(asked.wanted), "created_at": attempt.now}
    row, _ = upsert_locked(db, Replay, id=attempt.event.id, total=find.count_dead(store, asked.wanted), **values)
    if row.pages != number - 1:
        return []
    if not row.planned:
        step = find.search(store, "dead", asked.wanted, PAGE_SIZE, row.place)
        row.page, row.place, row.planned = [letter["id"] for letter in step.rows], step.cursor or "", True
        row.looked += step.scanned
    return list(row.page)


def _replay(store: Store, job: str, asked: Request, request: str) -> bool:
    """Have it run again, unless a former try at this page did; False where that cannot be."""
    now = queries.find_job(store, job)
    if now and now["state"] == JobState.DEAD and (now["finished"] or 0) > (asked.wanted.until or 0):
        return True  # and it has died of that once more
    bells = store.replay(job, f"{asked.by}, {request}", only=JobState.DEAD)
    if isinstance(bells, str):
        return bells in ("unfinished", JobState.SUCCEEDED)
    broker.ring(bells)
    return True


def _finish_page(attempt: Attempt, db: Session, number: int, words: list[bool]) -> list[FollowUp]:
    """Behind this page, in one transaction with the effect row."""
    row = select_for_update(db, Replay, attempt.event.id)
    if row is None or row.pages != number - 1:
        return []  # we slept over our lease, and somebody else has moved on
    row.replayed += sum(words)
    row.skipped += len(words) - sum(words)
    row.pages, row.page, row.planned = number, [], False
    if not row.place:
        row.finished_at = attempt.now
        return []
    return [FollowUp(f"replays.run_again.{number + 1}", BULK_REPLAY, {"page": number + 1})]
