"""Reconcile: ask Stripe for the events that it could not deliver, and take in those that never arrived.

    python -m tasks.reconcile             ask now
    python -m tasks.reconcile --days 3    go through all events of 3 days, delivered or not: after the store was lost

Each request to look is an event of our own (source `holdfast`), recorded when a worker starts and once for each hour by
whichever worker comes first: so its job has a lease, retries and a place among the jobs, and no process is the only one
that looks. A job takes in one page; the next page is its follow-up. How far it has come stands in the row `Reconcile`,
so that the newest request goes on where an elder one stopped; the elder one then gives way.

What is taken in: events that Stripe lists as not delivered everywhere (https://docs.stripe.com/api/events/list), of a
type that has a route, not younger than a minute (those may still be on their way) and not in the record. Since when:
one hour before the end of the last finished look, 30 days at the most, for Stripe lists no more. The very first look
goes back one hour: what happened before that is for a person to ask for. Only events of the account itself are listed,
not those of accounts that are connected to it.

Once a day a look goes through everything since the last one that did, delivered or not: what happened while the
endpoint was disabled was never to be delivered to it, and need not be listed as undelivered. What was delivered before
the very first look, to whatever was there before us, stays out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime

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
from tasks.handler import Attempt, FollowUp
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.models import Reconcile
from tasks.payloads import Int64, parse
from tasks.reconcile_request import ORDERING_KEY, SOURCE, request_reconcile, request_reconcile_now
from tasks.routes import RECONCILE, ROUTES

log = structlog.get_logger()

OVERLAP_SECONDS = 3600  # clocks that differ, and events that Stripe lists late
MIN_AGE_SECONDS = 60
DAY_SECONDS = 86400


class Request(Struct):
    """What is asked for: the events that were not delivered, or all events of some days."""

    days: Int64 | None = None


def request_hourly(store: Store, last: str) -> str:
    """Ask at the first call, then once an hour, all workers together; answers the hour, to be passed in next time."""
    now = datetime.fromtimestamp(store.now_ms() / 1000, UTC)
    hour = f"reconcile:{now:%Y-%m-%dT%H}:00"
    if hour != last:
        request_reconcile(store, hour if last else f"reconcile:{now:%Y-%m-%dT%H:%M}")
    return hour


def reconcile_page(attempt: Attempt, db: Session) -> list[FollowUp]:
    """One page of Stripe's list. Errors are transient: a key may be given the right to list events at any time."""
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
    """The span to go through; None if there is none any more, or a newer request has taken it over."""
    row, _ = upsert_locked(db, Reconcile, source="stripe", asked="", everything=False, after="", tried_at=attempt.now)
    if attempt.event.id < row.asked:
        return None
    if attempt.event.id > row.asked:
        row.asked = attempt.event.id
        days = parse(attempt.event.body, Request).days
        if days or row.until is None or not row.after:  # one that got somewhere is gone on with
            _new_span(row, int(attempt.now.timestamp()), days or 0)
    row.tried_at = attempt.now
    return row if row.until is not None else None


def _new_span(row: Reconcile, now: int, days: int) -> None:
    """From where the last look, or the last one through everything, ended, to what must have been delivered by now.

    An unfinished one is gone on with from its own start: the day's look through everything waits until it is over.
    """
    until = now - MIN_AGE_SECONDS
    if row.everything_until is None:
        row.everything_until = until + OVERLAP_SECONDS  # which is taken off again
    since, everything = (row.seen_until or now) - OVERLAP_SECONDS, False
    if row.until is not None and row.since is not None:
        since, everything = row.since, row.everything
    elif now - row.everything_until >= DAY_SECONDS:
        since, everything = row.everything_until - OVERLAP_SECONDS, True
    row.everything = everything or bool(days)
    row.since, row.until = max(min(since, now - days * DAY_SECONDS), now - STRIPE_RESENDS_DAYS * DAY_SECONDS), until
    row.after = ""


def _fetch_page(attempt: Attempt, row: Reconcile) -> stripe.EventPage:
    """The page behind `row.after`. Forgets that place if Stripe does: then the span is begun again."""
    types = [kind for source, kind in ROUTES if source == "stripe"]
    try:
        return stripe.list_events(attempt, types, row.since or 0, row.until or 0, row.after, everything=row.everything)
    except stripe.Refused:
        row.after = ""
        raise


def _record_missed(attempt: Attempt, events: Sequence[bytes]) -> None:
    """Through the same record as a delivery, the oldest first; what is known already stays as it is."""
    store = broker.open_store(attempt.settings, timeout_seconds=5)
    with closing(store.client):
        for body in reversed(events):
            try:
                identity = identify_stripe_event(body.decode(), attempt.settings.accepted_mode)
                event, jobs, _ = build_delivery("stripe", identity, body)
            except BadPayload:  # the receiver would refuse it, too
                continue
            bells = store.record(event, jobs, counted="missed") if jobs else None
            if bells is not None:
                log.warning(
                    "an event that never arrived was taken in", source="stripe", event_id=event.id, type=event.type
                )
                broker.ring(bells)


def _finish_page(attempt: Attempt, db: Session, page: stripe.EventPage, after: str) -> list[FollowUp]:
    """Behind this page, in one transaction with the effect row; or the end of the span."""
    row = select_for_update(db, Reconcile, "stripe")
    if row is None or (row.asked, row.after) != (attempt.event.id, after):
        return []  # we slept over our lease, and somebody else has moved on
    row.failure = None
    if page.last:
        row.after = page.last
        number = int(attempt.args.get("page", 1)) + 1
        return [FollowUp(f"reconcile.take_in.{number}", RECONCILE, {"page": number}, ordering_key=ORDERING_KEY)]
    row.seen_until = max(row.seen_until or 0, row.until or 0)
    if row.everything:
        row.everything_until = max(row.everything_until or 0, row.until or 0)
    row.until, row.after, row.finished_at = None, "", attempt.now
    return []


def main() -> None:
    """Ask now, and tell what comes of it. Whoever stops this stops only the telling."""
    parser = argparse.ArgumentParser(prog="python -m tasks.reconcile", description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, choices=range(1, STRIPE_RESENDS_DAYS + 1), metavar="1..30")
    days = parser.parse_args().days
    settings = load()
    if not settings.stripe_api_key:
        raise SettingsError("reconcile is off: STRIPE_API_KEY is not set")
    store = broker.open_store(settings, timeout_seconds=5)
    before = queries.stats(store)["missed"]
    event_id = request_reconcile_now(store, days)
    print(f"asked for: {event_id}; a worker does it now")
    _wait_for(store, event_id)
    print(f"events that never arrived and were taken in now: {queries.stats(store)['missed'] - before}")


def _wait_for(store: Store, event_id: str) -> None:
    """Until no job of the request is owed; each new trouble is told once."""
    told: set[str] = set()
    while event := queries.find_event(store, SOURCE, event_id):
        owed = [job for job in event["jobs"] if job["state"] in UNFINISHED]
        if not owed:
            return
        for reason in {job["reason"] for job in owed if job["reason"]} - told:
            told.add(reason)
            print(f"{reason}; it is tried again")
        time.sleep(0.2)
