"""Reconcile: ask Stripe for events that it could not deliver, and record those that never arrived.

    python -m tasks.reconcile             fetch them now
    python -m tasks.reconcile --days 3    fetch all events of 3 days, delivered or not: after the store was lost

Each request is an event of our own (source `holdfast`), recorded when a worker starts and once an hour by whichever
worker comes first. So its job has a lease and retries, and no single process is responsible for it. A job processes one
page of Stripe's list; the next page is its follow-up. The progress is in the row `Reconcile`, so that a new request
resumes the run of an older one, which then stops.

What is recorded: events that Stripe lists as not delivered (https://docs.stripe.com/api/events/list), of a type that
has a route, at least a minute old (younger ones may still be on their way) and not yet in the record. A run starts one
hour before the end of the last finished one, at most 30 days ago, because Stripe lists no older events. The first run
starts one hour ago: anything earlier must be requested by a person. Only the account's own events are listed, not those
of connected accounts.

Once a day a run lists everything since the last such run, delivered or not: events from a time when the endpoint was
disabled were never due for delivery, and may not be listed as undelivered. Events delivered before the very first run,
to a receiver that we replaced, are not fetched.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta

import structlog
from msgspec import Struct
from sqlalchemy.orm import Session

from inbox import queries
from inbox.errors import BadPayload, HoldfastError, TransientError
from inbox.job import UNFINISHED
from inbox.store import Store
from settings import STRIPE_RESENDS_DAYS, SettingsError, load
from tasks import broker
from tasks.clients import stripe
from tasks.db.locking import select_for_update, upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, next_page
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.models import Reconcile
from tasks.payloads import Int64, parse
from tasks.reconcile_request import ORDERING_KEY, request_reconcile, request_reconcile_now
from tasks.routes import OWN_SOURCE, RECONCILE, ROUTES
from tasks.sync_request import request_sync

log = structlog.get_logger()

OVERLAP_SECONDS = 3600  # allows for clocks that differ, and for events that Stripe lists late
MIN_AGE_SECONDS = 60
DAY_SECONDS = 86400


class Request(Struct):
    """The body of the request's event. None: the undelivered events; else all events of so many days."""

    days: Int64 | None = None


def request_hourly(store: Store, last: str) -> str:
    """Record a request at the first call of a process, and one per hour among all workers.

    `last` is what the previous call returned, "" at the first. Each hour the subscriptions are compared, too.
    """
    now = datetime.fromtimestamp(store.now_ms() / 1000, UTC)
    hour = f"reconcile:{now:%Y-%m-%dT%H}:00"
    if hour != last:
        request_reconcile(store, hour if last else f"reconcile:{now:%Y-%m-%dT%H:%M}")
        if last:
            request_sync(store, f"subscriptions:{now:%Y-%m-%dT%H}:00")
    return hour


def reconcile_page(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fetch and record one page of Stripe's list.

    All errors are transient: even a key that may not list events may be given that right at any time.
    """
    if not attempt.settings.stripe_api_key:
        return []
    row = _begin(attempt, db)
    if row is None:
        return []
    after = row.after
    try:
        with outside_transaction(db):
            page = _fetch_page(attempt, row)
            _record_missed(attempt, page.events)
    except HoldfastError as error:
        row.failure = str(error)
        db.commit()
        raise TransientError(str(error), getattr(error, "retry_after_seconds", 0)) from None
    return _finish_page(attempt, db, page, after)


def _begin(attempt: Attempt, db: Session) -> Reconcile | None:
    """The run to work on; None if it is finished, or belongs to a newer request.

    A request from the future, from when a clock was wrong, is no newer one.
    """
    row, _ = upsert_locked(
        db, Reconcile, source="stripe", request_id="", everything=False, after="", tried_at=attempt.now
    )
    newest = f"reconcile:{attempt.now + timedelta(seconds=OVERLAP_SECONDS):%Y-%m-%dT%H:%M:%S}"
    if attempt.event.id < row.request_id <= newest:
        return None
    if attempt.event.id != row.request_id:
        row.request_id = attempt.event.id
        days = parse(attempt.event.body, Request).days
        if days or row.until is None or not row.after:  # else resume the run: it has recorded a page
            _start_run(row, int(attempt.now.timestamp()), days or 0)
    row.tried_at = attempt.now
    return row if row.until is not None else None


def _start_run(row: Reconcile, now: int, days: int) -> None:
    """Start a run, from where the last one ended until MIN_AGE_SECONDS ago.

    An unfinished run starts again from its own beginning; the daily run over everything waits for it. A time in the
    future, from when a clock was wrong, counts as now: nothing after it would be asked for until then.
    """
    until = now - MIN_AGE_SECONDS
    if row.everything_until is None:
        row.everything_until = until + OVERLAP_SECONDS  # subtracted again below
    row.everything_until = min(row.everything_until, now + OVERLAP_SECONDS)
    since, everything = min(row.seen_until or now, now) - OVERLAP_SECONDS, False
    if row.until is not None and row.since is not None:
        since, everything = row.since, row.everything
    elif now - row.everything_until >= DAY_SECONDS:
        since, everything = row.everything_until - OVERLAP_SECONDS, True
    row.everything = everything or bool(days)
    row.since, row.until = max(min(since, now - days * DAY_SECONDS), now - STRIPE_RESENDS_DAYS * DAY_SECONDS), until
    row.after = ""


def _fetch_page(attempt: Attempt, row: Reconcile) -> stripe.EventPage:
    """The page after `row.after`. If Stripe no longer knows that event, clear it, so that the run starts again."""
    types = [kind for source, kind in ROUTES if source == "stripe"]
    try:
        return stripe.list_events(attempt, types, row.since or 0, row.until or 0, row.after, everything=row.everything)
    except stripe.Refused:
        row.after = ""
        raise


def _record_missed(attempt: Attempt, events: Sequence[bytes]) -> None:
    """Record the events as deliveries are recorded, oldest first; those already in the record do not change."""
    store, settings = broker.open_store(attempt.settings, timeout_seconds=5), attempt.settings
    mode, accounts = settings.accepted_mode, settings.stripe_connected_accounts
    with closing(store.client):
        for body in reversed(events):
            try:
                identity = identify_stripe_event(body.decode(), mode, accounts)
                event, jobs, *_ = build_delivery("stripe", identity, body)
            except BadPayload:  # the receiver would reject it, too
                continue
            bells = store.record(event, jobs, counted="missed") if jobs else None
            if bells is not None:
                log.warning("recorded an event that never arrived", source="stripe", event_id=event.id, type=event.type)
                broker.ring(bells)


def _finish_page(attempt: Attempt, db: Session, page: stripe.EventPage, after: str) -> list[FollowUp]:
    """Move on to the next page, or finish the run, in the transaction of the effect row."""
    row = select_for_update(db, Reconcile, "stripe")
    if row is None or (row.request_id, row.after) != (attempt.event.id, after):
        return []  # our lease expired, and another worker has finished this page
    row.failure = None
    if page.last:
        row.after = page.last
        return [next_page(attempt, RECONCILE, ORDERING_KEY)]
    now = int(attempt.now.timestamp())
    row.seen_until = min(max(row.seen_until or 0, row.until or 0), now)
    if row.everything:
        row.everything_until = min(max(row.everything_until or 0, row.until or 0), now)
    row.until, row.after, row.finished_at = None, "", attempt.now
    return []


def main() -> None:
    """Request a run now and print its progress. Interrupting this command does not stop the run."""
    parser = argparse.ArgumentParser(prog="python -m tasks.reconcile", description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, choices=range(1, STRIPE_RESENDS_DAYS + 1), metavar="1..30")
    days = parser.parse_args().days
    settings = load()
    if not settings.stripe_api_key:
        raise SettingsError("reconcile is off: STRIPE_API_KEY is not set")
    store = broker.open_store(settings, timeout_seconds=5)
    before = queries.stats(store)["missed"]
    event_id = request_reconcile_now(store, days, "tasks.reconcile")
    print(f"requested: {event_id}; a worker runs it now")
    _wait_for(store, event_id)
    print(f"events that never arrived and were recorded now: {queries.stats(store)['missed'] - before}")


def _wait_for(store: Store, event_id: str) -> None:
    """Wait until the request has no unfinished job; print each new reason for a retry once."""
    printed: set[str] = set()
    while event := queries.find_event(store, OWN_SOURCE, event_id):
        unfinished = [job for job in event["jobs"] if job["state"] in UNFINISHED]
        if not unfinished:
            return
        for reason in {job["reason"] for job in unfinished if job["reason"]} - printed:
            printed.add(reason)
            print(f"{reason}; it is retried")
        time.sleep(0.2)
