"""Subscriptions: the last known Stripe status, and our status computed from it and the invoices.

Our status is always recomputed from the stored facts, never changed step by step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct, field
from sqlalchemy.orm import Session

from tasks.billing import announcements, debts, dunning, failures, invoices, refetch, stripe_entitlements
from tasks.billing.subscription_state import SUBSCRIPTION_ORDER, Debt, Version, derive_status, is_newer
from tasks.billing.terms import PlanPrice, Terms, TermsObject, terms_of
from tasks.clients import stripe
from tasks.connected_accounts import account_of
from tasks.db.locking import upsert_locked
from tasks.handler import Attempt, FollowUp
from tasks.models import Subscription
from tasks.orders import access
from tasks.orders.product_grants import Item, make_item
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, metadata_of, parse, product_of, ref, require


class CurrentTrial(Struct):
    """A trial offer of an item, since API version 2026-09-30: until then the item has the offer's price."""

    end_date: UnixTime


class SubscriptionItem(Struct):
    """One price of a subscription; API versions without prices call it `plan`."""

    price: PlanPrice | None = None
    plan: PlanPrice | None = None
    quantity: Int64 | None = None
    current_trial: CurrentTrial | None = None
    current_period_end: UnixTime | None = None  # before API version 2025-03-31 (basil) on the subscription


class SubscriptionItems(Struct):
    data: list[SubscriptionItem] = field(default_factory=list)
    has_more: bool = False

    @property
    def as_stored(self) -> list[Item]:
        """Only of items with different periods each has the end of its own."""
        differ = len({one.current_period_end for one in self.data}) > 1
        return [
            make_item(one.price or one.plan, one.quantity) | ({"period_end": one.current_period_end} if differ else {})
            for one in self.data
        ]


class CancellationDetails(Struct):
    reason: Text | None = None  # cancellation_requested | payment_disputed | payment_failed


class PauseReason(Struct):
    type: Text | None = None


class Paused(Struct):
    subscription: PauseReason | None = None


class StatusDetails(Struct):
    """Since API version 2026-09-30."""

    paused: Paused | None = None


class SubscriptionObject(TermsObject):
    """The fields that we use of https://docs.stripe.com/api/subscriptions/object."""

    id: Id | None = None
    customer: Ref = None
    customer_account: Id | None = None  # instead of `customer`, if that is an account (Accounts v2)
    status: Text | None = None
    items: SubscriptionItems | None = None
    current_period_end: UnixTime | None = None
    cancellation_details: CancellationDetails | None = None
    metadata: dict[str, Any] | None = None
    collection_method: Text | None = None
    latest_invoice: Ref = None
    pending_update: dict[str, Any] | None = None
    status_details: StatusDetails | None = None

    @property
    def period_end(self) -> int | None:
        """When the current period ends: of items with different periods, the latest."""
        ends = [one.current_period_end for one in (self.items.data if self.items else ()) if one.current_period_end]
        return max(ends, default=self.current_period_end)

    @property
    def trial_ends_at(self) -> int | None:
        """When the trial ends: of items with trials of their own, the first."""
        ends = [one.current_trial.end_date for one in (self.items.data if self.items else ()) if one.current_trial]
        return self.trial_end or min(ends, default=None)

    @property
    def paused_because(self) -> str | None:
        """Why it is paused, such as `final_payment_failure`."""
        paused = self.status_details.paused if self.status_details else None
        return paused.subscription.type if paused and paused.subscription and self.status == "paused" else None

    @property
    def details(self) -> dict[str, Any]:
        """The columns of its row that any newer version replaces."""
        return {
            "terms": dict(terms_in(self)),
            "product": product_of(self.metadata),
            "meta": metadata_of(self.metadata) or None,
            "period_end": self.period_end,
            "cancel_at": self.cancel_at or (self.period_end if self.cancel_at_period_end else None),
            "ended_because": self.cancellation_details.reason if self.cancellation_details else None,
            "paused_because": self.paused_because,
            "sent": self.collection_method == "send_invoice",
            "latest_invoice": ref(self.latest_invoice),
            "pending_update": self.pending_update is not None,
        }


class SubscriptionSnapshot(NamedTuple):
    """A subscription as an event or Stripe's API shows it. An invoice shows only its customer."""

    customer: str
    version: Version | None = None
    object: SubscriptionObject | None = None


def subscription_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.subscription.created, updated, deleted, paused, resumed: update status, dunning and access.

    Notify a customer whose subscription was cancelled for want of payment, and plan the reminder of a trial's end.
    """
    event = parse(attempt.event.body, StripeEvent[SubscriptionObject])
    row, jobs = _apply_event(attempt, db, event)
    unpaid = row.stripe_status == "canceled" and row.ended_because == "payment_failed"
    mails = [announcements.announce_end(attempt, db, row)] if unpaid else []
    return [*mails, *announcements.plan_trial_reminder(attempt, db, row), *jobs]


def trial_will_end(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.subscription.trial_will_end: as any change; notify the customer if the trial still runs."""
    event = parse(attempt.event.body, StripeEvent[SubscriptionObject])
    row, jobs = _apply_event(attempt, db, event)
    if row.stripe_status != "trialing":
        return jobs
    trial_end = require(event.data.object.trial_ends_at, "data.object.trial_end")
    return [announcements.announce_trial_end(attempt, db, row, trial_end), *jobs]


def fetch_current(attempt: Attempt, db: Session, subscription: str | None, created: int) -> SubscriptionSnapshot | None:
    """The subscription as Stripe has it now; None without an API key, or if Stripe does not know it. May commit.

    `created` is the creation time of the event being handled: the snapshot is never older than that.
    """
    found = refetch.fetch_current(attempt, db, stripe.fetch_subscription, subscription, SubscriptionObject)
    return _snapshot(found, refetch.observed_at(attempt, created), attempt.event.id, fetched=True) if found else None


def upsert_snapshot(attempt: Attempt, db: Session, subscription: str, new: SubscriptionSnapshot) -> Subscription:
    """The subscription's row, locked, updated from the snapshot if that is newer."""
    values = {"account": account_of(attempt), "customer": new.customer, "status": "", "updated_at": attempt.now}
    row, _ = upsert_locked(db, Subscription, id=subscription, **values)
    version = new.version
    if version is not None and is_newer(version, _current_version(row), SUBSCRIPTION_ORDER):
        row.stripe_status, row.seen_created, row.seen_event = version.state, version.at, version.event
        for name, value in (new.object.details if new.object else {}).items():
            setattr(row, name, value)
    if version is not None and new.object is not None:
        _update_items(row, version, new.object.items)
    return row


def _update_items(row: Subscription, version: Version, found: SubscriptionItems | None) -> None:
    """Store the items, if the list is newer than the stored one. Stripe embeds only the first ten.

    A complete list is never replaced by a part: what is not in a part may still be provided.
    """
    if found is None:
        return
    complete = not found.has_more
    rank = (complete, version.at, version.fetched, version.event)
    known = (row.items_complete, row.items_seen_created, False, row.items_seen_event)
    if row.items is None or rank > known:
        row.items = found.as_stored
        row.items_complete, row.items_seen_created, row.items_seen_event = complete, version.at, version.event


def recompute(attempt: Attempt, db: Session, row: Subscription | None, invoice: str | None = None) -> list[FollowUp]:
    """Recompute dunning, status and access after a fact has changed; returns the jobs to enqueue.

    `row` is the locked subscription; None for the invoice with the id `invoice`, which has none.
    """
    if {*db.new, *db.dirty} - {row}:  # else the subscription's facts and its status become one UPDATE
        db.flush()
    unpaid = dunning.unpaid_invoices(db, row.id if row else None, invoice)
    failing = dunning.select_failing(attempt.settings, db, unpaid, row)
    jobs = [job for one in failing for job in dunning.plan_next_step(attempt, db, one, row)]
    if row is None:
        dunning.cancel_settled(attempt, db, failing, None, invoice)
        return jobs
    paid_since, owed = debts.is_paid_since(db, row), debts.load_debts(db, row, failing)
    overdue = None if owed or paid_since else debts.overdue_invoice(attempt.settings, db, row)
    dunning.cancel_settled(attempt, db, failing, row, invoice, overdue=overdue)
    if overdue:
        jobs += dunning.plan_grace(attempt, db, overdue, row.customer, None)
        owed = [Debt(row.seen_created, dunning.is_given_up(db, overdue))]
    stripe_status = row.stripe_status or ("incomplete" if unpaid and not failing else None)
    status = derive_status(stripe_status, row.seen_created, owed, paid_since=paid_since)
    if row.status != status:
        row.status, row.updated_at = status, attempt.now
    jobs += announcements.announce_pause(attempt, db, row, debts.own_invoices(row, failing))
    return jobs + access.sync_entitlements(db, attempt, subscription=row.id)


def _apply_event(
    attempt: Attempt, db: Session, event: StripeEvent[SubscriptionObject]
) -> tuple[Subscription, list[FollowUp]]:
    created = require(event.created, "created")
    subscription = require(event.data.object.id, "data.object.id")
    # Of two events of one second the later counts, and nothing comes before the creation: its id ranks lowest.
    name = "" if attempt.event.type == "customer.subscription.created" else attempt.event.id
    from_event = _snapshot(event.data.object, created, name)
    snapshot = fetch_current(attempt, db, subscription, created) or from_event
    stripe_entitlements.fetch_if_unknown(attempt, db, snapshot.customer)
    overdue = _fetch_overdue(attempt, db, snapshot)
    row = upsert_snapshot(attempt, db, subscription, snapshot)
    if overdue is not None:
        invoices.upsert_snapshot(attempt, db, overdue)
        failures.record(attempt, db, failures.OVERDUE, overdue.object, created=overdue.object.due_date or created)
    return row, recompute(attempt, db, row)


def _fetch_overdue(attempt: Attempt, db: Session, new: SubscriptionSnapshot) -> invoices.InvoiceSnapshot | None:
    """With an API key: the open invoice of a past-due subscription that is paid by hand, which no event has named.

    May commit."""
    found = new.object
    if found is None or found.status != "past_due" or found.collection_method != "send_invoice":
        return None
    invoice = invoices.fetch(attempt, db, ref(found.latest_invoice))
    return invoice if invoice is not None and invoice.version.state == "open" and invoice.object.sent else None


def _snapshot(found: SubscriptionObject, at: int, event: str, *, fetched: bool = False) -> SubscriptionSnapshot:
    status = require(found.status, "data.object.status")
    customer = require(ref(found.customer) or found.customer_account, "data.object.customer")
    return SubscriptionSnapshot(customer, Version(status, at, event, fetched), found)


def terms_in(found: SubscriptionObject) -> Terms:
    """The terms of a subscription as Stripe sent it; without an amount if not all prices that follow are there."""
    items = found.items or SubscriptionItems(has_more=True)
    unknown = items.has_more or any(one.current_trial for one in items.data)
    prices = [(one.price or one.plan, one.quantity) for one in items.data]
    return {**terms_of(found, [] if unknown else prices), "trial_end": found.trial_ends_at}


def _current_version(row: Subscription) -> Version | None:
    return Version(row.stripe_status, row.seen_created, row.seen_event) if row.stripe_status else None
