"""Compare our subscriptions with Stripe's list, and look again at each that differs.

    holdfast import stripe    all subscriptions of the account, also those that began before Holdfast
    every hour                those that Holdfast knows; after an import, all

Like reconcile, each request is an event of our own, whose job processes one page; the next page is its follow-up. The
progress is in the row `SubscriptionSync`, so that a new request continues the run of an older one, which then stops.

Each subscription that differs becomes an event `subscription.differs`, one per run, which is handled as
`customer.subscription.updated` is, with attempts of its own. PER_SECOND limits how many.

Stripe's list lacks the subscriptions that have ended: at its end, those of ours that it lacked are fetched one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import structlog
from msgspec import Struct
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from inbox.errors import HoldfastError, PermanentError, TransientError
from tasks import broker
from tasks.billing import invoices
from tasks.billing.subscription_state import FINAL
from tasks.billing.subscriptions import SubscriptionObject, subscription_changed
from tasks.clients import stripe
from tasks.db.locking import select_for_update, upsert_locked
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, next_page
from tasks.ingest import stripe_ordering_key
from tasks.models import Invoice, Subscription, SubscriptionSync
from tasks.own_events import record_own_event
from tasks.payloads import Id, StripeEvent, convert, parse, ref
from tasks.routes import SYNC_SUBSCRIPTIONS
from tasks.sync_request import ORDERING_KEY

log = structlog.get_logger()

PER_SECOND = 10  # subscriptions to look at again; Stripe allows 25 calls a second in test mode, 100 in live mode
UNLISTED_PER_PAGE = 20  # each is a call of its own
DIFFERS = "subscription.differs"


class Request(Struct):
    """The body of the request's event."""

    imports: bool = False
    dry_run: bool = False


class ListedSubscription(Struct):
    """A subscription in Stripe's list, with its latest invoice in place of its id."""

    id: Id
    latest_invoice: Any = None


class Page(NamedTuple):
    """Subscriptions as Stripe has them. `last`: the id to continue after; "" at the end."""

    found: list[dict[str, Any]]
    last: str


def sync_page(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Compare one page. All errors are transient, as those of reconcile are."""
    if not attempt.settings.stripe_api_key:
        return []
    row = _begin(attempt, db)
    if row is None:
        return []
    position = row.after, row.unlisted_after
    try:
        page = _fetch(attempt, db, row)
        differing = _differing(db, page.found, imports=row.imports)
        if not row.dry_run:
            with outside_transaction(db):
                _record(attempt, differing, str(row.began))
    except HoldfastError as error:
        if isinstance(error, stripe.Refused):  # Stripe no longer knows the last subscription: the run starts again
            row.after = ""
        row.failure = str(error)
        db.commit()
        raise TransientError(str(error), getattr(error, "retry_after_seconds", 0)) from None
    return _finish_page(attempt, db, page, len(differing), position)


def handle_difference(attempt: Attempt, db: Session) -> list[FollowUp]:
    """subscription.differs: as customer.subscription.updated.

    Of one that is not known the latest invoice is stored, too, if it is paid: it has the customer's address, and shows
    what was paid for the current period. That payment is not announced: it may be a year old.
    """
    found = parse(attempt.event.body, StripeEvent[ListedSubscription]).data.object
    if db.get(Subscription, found.id) is None:
        _store_paid_invoice(attempt, db, found.latest_invoice)
    return subscription_changed(attempt, db)


def _store_paid_invoice(attempt: Attempt, db: Session, found: Any) -> None:
    if not isinstance(found, dict) or found.get("status") != "paid" or db.get(Invoice, found.get("id")):
        return
    try:
        row = invoices.upsert_snapshot(attempt, db, invoices.snapshot_from_stripe(attempt, found))
    except PermanentError as error:
        log.warning("cannot read the latest invoice of a subscription", reason=str(error))
        return
    row.renewal_told = True


def _begin(attempt: Attempt, db: Session) -> SubscriptionSync | None:
    """The run to work on; None if it is finished, or belongs to a newer request."""
    row, _ = upsert_locked(
        db,
        SubscriptionSync,
        source="stripe",
        request_id="",
        imports=False,
        dry_run=False,
        after="",
        listed=0,
        differing=0,
        tried_at=attempt.now,
    )
    if attempt.event.id < row.request_id:
        return None
    if attempt.event.id > row.request_id:
        row.request_id = attempt.event.id
        request = parse(attempt.event.body, Request)
        if request.imports or row.began is None:  # else continue the run
            _start_run(row, request, int(attempt.now.timestamp()))
    row.tried_at = attempt.now
    return row if row.began is not None else None


def _start_run(row: SubscriptionSync, request: Request, now: int) -> None:
    continues = request.imports and row.imports and row.began is not None and request.dry_run == row.dry_run
    if continues:
        return
    row.imports, row.dry_run = request.imports or row.imported_at is not None, request.dry_run
    row.began, row.after, row.unlisted_after, row.listed, row.differing = now, "", None, 0, 0


def _fetch(attempt: Attempt, db: Session, row: SubscriptionSync) -> Page:
    """The page after `row.after`; behind the last one, those of ours that the list lacked, as Stripe has them."""
    if row.unlisted_after is None:
        with outside_transaction(db):
            found, more = stripe.list_subscriptions(attempt, row.after)
        return Page(found, str(found[-1]["id"]) if found and more else "")
    unlisted = _unlisted(db, row)
    with outside_transaction(db):
        known = [_fetch_one(attempt, key) for key in unlisted]
    return Page([one for one in known if one], unlisted[-1] if len(unlisted) == UNLISTED_PER_PAGE else "")


def _unlisted(db: Session, row: SubscriptionSync) -> list[str]:
    """Ours that have not ended, as far as we know, and that Stripe's list lacked; those of the run itself aside."""
    statement = (
        select(Subscription.id)
        .where(Subscription.id > (row.unlisted_after or ""), Subscription.account == "")
        .where(Subscription.stripe_status.not_in(FINAL), Subscription.seen_created < row.began)
        .where(or_(Subscription.listed_at.is_(None), Subscription.listed_at < row.began))
    )
    return list(db.scalars(statement.order_by(Subscription.id).limit(UNLISTED_PER_PAGE)))


def _fetch_one(attempt: Attempt, key: str) -> dict[str, Any] | None:
    try:
        return stripe.fetch_subscription(attempt, key)
    except stripe.Refused:
        return None


def _differing(db: Session, page: Sequence[dict[str, Any]], *, imports: bool) -> list[dict[str, Any]]:
    statement = select(Subscription).where(Subscription.id.in_([one["id"] for one in page]), Subscription.account == "")
    rows = {row.id: row for row in db.scalars(statement)}
    decoded = [(one, _decode(one)) for one in page]
    return [one for one, found in decoded if found and _differs(rows.get(one["id"]), found, imports=imports)]


def _decode(one: dict[str, Any]) -> SubscriptionObject | None:
    try:
        return convert(one, SubscriptionObject)
    except PermanentError as error:  # it must not hold up the others
        log.warning("cannot compare a subscription", subscription=one["id"], reason=str(error))
        return None


def _differs(row: Subscription | None, found: SubscriptionObject, *, imports: bool) -> bool:
    """Whether to look again. A list that Stripe embeds only in part is not compared."""
    if row is None:
        return imports and found.status not in FINAL
    if found.items is None or found.items.has_more:
        return row.stripe_status != found.status
    details = {name: getattr(row, name) for name in found.details}
    return (row.stripe_status, row.items, details) != (found.status, found.items.as_stored, found.details)


def _record(attempt: Attempt, differing: Sequence[dict[str, Any]], run: str) -> None:
    store = broker.open_store(attempt.settings, timeout_seconds=5)
    with closing(store.client):
        for one in differing:
            event_id, found = f"{one['id']}:{run}", convert(one, SubscriptionObject)
            body = {"created": int(attempt.now.timestamp()), "livemode": one.get("livemode"), "data": {"object": one}}
            key = stripe_ordering_key("", ref(found.customer) or found.customer_account)
            record_own_event(store, event_id, DIFFERS, body, key)


def _finish_page(
    attempt: Attempt, db: Session, page: Page, differing: int, position: tuple[str, str | None]
) -> list[FollowUp]:
    """Move on to the next page, or finish the run, in the transaction of the effect row."""
    row = select_for_update(db, SubscriptionSync, "stripe")
    expected = attempt.event.id, *position
    if row is None or row.began is None or (row.request_id, row.after, row.unlisted_after) != expected:
        return []  # our lease expired, and another worker has finished this page
    row.failure = None
    row.differing += differing
    if row.unlisted_after is None:
        row.listed += len(page.found)
        listed = [one["id"] for one in page.found]
        db.execute(update(Subscription).where(Subscription.id.in_(listed)).values(listed_at=row.began))
        row.after, row.unlisted_after = page.last, None if page.last else ""
    elif page.last:
        row.unlisted_after = page.last
    else:
        _finish_run(row, attempt)
        return []
    pause = 0 if row.dry_run else math.ceil(differing / PER_SECOND)
    return [replace(next_page(attempt, SYNC_SUBSCRIPTIONS, ORDERING_KEY), delay_seconds=pause)]


def _finish_run(row: SubscriptionSync, attempt: Attempt) -> None:
    row.began, row.after, row.unlisted_after, row.finished_at = None, "", None, attempt.now
    if row.imports and not row.dry_run:
        row.imported_at = attempt.now
