"""Payments of invoices: failures are recorded, announced and retried; a payment ends the dunning.

An event only adds facts (the failure, the newest version of invoice and subscription). subscriptions.py computes the
state from them, so that every order of arrival ends in the same state.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import Session

from tasks.billing import announcements, debts, dunning, failures, invoice_retry, invoices, subscriptions
from tasks.billing.invoices import InvoiceObject, InvoiceSnapshot
from tasks.billing.subscription_state import FINAL, SUSPENDED
from tasks.billing.subscriptions import SubscriptionSnapshot
from tasks.db.locking import select_for_update
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, PaymentGrace, PaymentRetry, Subscription
from tasks.orders import access, sales_without_session
from tasks.payloads import StripeEvent, parse, require


class Applied(NamedTuple):
    """The rows of an invoice and its subscription, locked and up to date, and the jobs to enqueue."""

    invoice: Invoice
    row: Subscription | None
    jobs: list[FollowUp]


def payment_failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.payment_failed: record it, mark the subscription past due, notify the customer, plan a retry or the grace
    period."""
    return _failed(attempt, db, "payment_failed")


def payment_action_required(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.payment_action_required: a failure that the customer can resolve by confirming the payment."""
    return _failed(attempt, db, "payment_action_required")


def invoice_paid(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.paid and invoice.payment_succeeded: end dunning, restore access, notify the customer."""
    return _settled(attempt, db, "paid")


def invoice_voided(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.voided: the invoice is not due any more, so its dunning ends."""
    return _settled(attempt, db, "void")


def invoice_uncollectible(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.marked_uncollectible: the invoice is written off: no further retries, only a grace period."""
    return _settled(attempt, db, "uncollectible")


def invoice_overdue(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.overdue: an invoice that the customer pays by hand is due, and not paid: plan its grace period."""
    event = parse(attempt.event.body, StripeEvent[InvoiceObject])
    from_event = invoices.snapshot_from_event(attempt, event, "open")
    current = invoices.fetch_current(attempt, db, from_event)
    subscription = subscriptions.fetch_current(attempt, db, current.object.subscription_id, from_event.version.at)
    created = require(event.created, "created")
    failures.record(attempt, db, failures.OVERDUE, event.data.object, created=created)
    return _apply(attempt, db, current, subscription).jobs


def retry_payment(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Retry the payment of an invoice, if the retry is still planned. A declined card is an outcome, not an error."""
    key = str(attempt.args["invoice"]), int(attempt.args["number"])
    retry = dunning.select_planned(db, PaymentRetry, key)
    if retry is None:
        return []
    outcome = invoice_retry.retry_payment(attempt, db, retry)
    invoice = invoices.snapshot_from_stripe(attempt, outcome.invoice)
    subscription = subscriptions.fetch_current(attempt, db, invoice.object.subscription_id, 0)
    retry = dunning.select_planned(db, PaymentRetry, key)
    if retry is None:
        return []
    retry.state, retry.decline_code, retry.charged = outcome.state, outcome.code, outcome.charged
    retry.done_at = attempt.now
    return _apply(attempt, db, invoice, subscription).jobs


def end_grace_period(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The grace period is over: if the invoice is still unpaid, suspend, and notify customer and administrator."""
    key = str(attempt.args["invoice"]), int(attempt.args["number"])
    if not dunning.select_planned(db, PaymentGrace, key):
        return []
    jobs = _refetch(attempt, db, key[0])
    grace = dunning.select_planned(db, PaymentGrace, key)
    if grace is None:
        return jobs
    grace.state, grace.done_at = "over", attempt.now
    invoice = db.get(Invoice, key[0])
    ended = _end_dunning(attempt, db, invoice, key[1]) if invoice else _end_dunning_of_unknown(attempt, db, key)
    return [*jobs, *ended]


def _failed(attempt: Attempt, db: Session, kind: str) -> list[FollowUp]:
    event = parse(attempt.event.body, StripeEvent[InvoiceObject])
    from_event = invoices.snapshot_from_event(attempt, event, "open")
    current = invoices.fetch_current(attempt, db, from_event)
    subscription = subscriptions.fetch_current(attempt, db, current.object.subscription_id, from_event.version.at)
    code = invoices.decline_reason(attempt, current)
    failed, created = event.data.object, require(event.created, "created")
    failures.record(attempt, db, kind, failed, created=created, code=code)
    newest = failures.last_failure_at(db, str(failed.id)) <= created
    if newest:
        dunning.resolve_pending_retry(attempt, db, str(failed.id))
    invoice, row, jobs = _apply(attempt, db, current, subscription)
    if not newest or not _is_payable(invoice, row):
        return jobs
    return [*announcements.announce_failure(attempt, db, invoice, failed.attempt_count), *jobs]


def _settled(attempt: Attempt, db: Session, state: str) -> list[FollowUp]:
    event = parse(attempt.event.body, StripeEvent[InvoiceObject])
    from_event = invoices.snapshot_from_event(attempt, event, state)
    current = invoices.fetch_current(attempt, db, from_event)
    subscription = subscriptions.fetch_current(attempt, db, current.object.subscription_id, from_event.version.at)
    return _apply(attempt, db, current, subscription).jobs


def _apply(attempt: Attempt, db: Session, new: InvoiceSnapshot, subscription: SubscriptionSnapshot | None) -> Applied:
    """Store the new facts and recompute what depends on them."""
    invoice = invoices.upsert_snapshot(attempt, db, new)
    if invoice.subscription is None:
        jobs = subscriptions.recompute(attempt, db, None, invoice.id)
        if invoice.state == "paid":
            jobs += access.sync_entitlements(db, attempt, invoice=invoice.id)
            jobs += sales_without_session.enqueue_sale(attempt, db, invoice)
        return Applied(invoice, None, [*announcements.announce_payment(attempt, db, invoice, restored=False), *jobs])
    known = subscription or SubscriptionSnapshot(invoice.customer)
    row = subscriptions.upsert_snapshot(attempt, db, invoice.subscription, known)
    before = row.status
    access.lock_entitlements(db, invoice=invoice.id)  # a concurrent refund may name only the invoice
    jobs = subscriptions.recompute(attempt, db, row)
    restored = before == SUSPENDED != row.status
    return Applied(invoice, row, [*announcements.announce_payment(attempt, db, invoice, restored=restored), *jobs])


def _is_payable(invoice: Invoice, row: Subscription | None) -> bool:
    status = row.stripe_status if row is not None else None
    return invoice.state == "open" and status not in FINAL and not dunning.is_sign_up_invoice(invoice, status)


def _refetch(attempt: Attempt, db: Session, invoice: str) -> list[FollowUp]:
    """With an API key: fetch the invoice and its subscription, and apply them."""
    snapshot = invoices.fetch(attempt, db, invoice)
    if snapshot is None:
        return []
    subscription = subscriptions.fetch_current(attempt, db, snapshot.object.subscription_id, 0)
    return _apply(attempt, db, snapshot, subscription).jobs


def _end_dunning(attempt: Attempt, db: Session, invoice: Invoice, grace: int) -> list[FollowUp]:
    row = select_for_update(db, Subscription, invoice.subscription) if invoice.subscription else None
    before = row.status if row else None
    jobs = subscriptions.recompute(attempt, db, row, None if row else invoice.id)
    suspended = row is not None and row.status == SUSPENDED != before
    about = {"invoice": invoice.id, "customer": invoice.customer}
    return [*announcements.announce_given_up(attempt, db, grace, suspended=suspended, **about), *jobs]


def _end_dunning_of_unknown(attempt: Attempt, db: Session, key: tuple[str, int]) -> list[FollowUp]:
    """The end of a grace period of an invoice of which only the id is known, or only its subscription's id."""
    found = debts.subscription_of_unknown(db, key[0])
    row = select_for_update(db, Subscription, found.id) if found else None
    if row is None:
        return []
    jobs = subscriptions.recompute(attempt, db, row)
    if row.status != SUSPENDED:
        return jobs
    about = {"invoice": key[0], "customer": row.customer}
    return [*announcements.announce_given_up(attempt, db, key[1], suspended=True, **about), *jobs]
