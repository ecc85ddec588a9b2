"""Payments of invoices: failures are recorded, announced and retried; a payment ends the dunning.

An event only adds facts (the failure, the newest version of invoice and subscription). subscriptions.py computes the
state from them, so that every order of arrival ends in the same state.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from tasks.billing import dunning, invoice_retry, invoices, subscriptions
from tasks.billing.invoices import InvoiceObject, InvoiceSnapshot
from tasks.billing.subscription_state import FINAL, SUSPENDED
from tasks.billing.subscriptions import SubscriptionSnapshot
from tasks.clients import stripe
from tasks.db.locking import insert_if_new, select_for_update
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, Notification, PaymentFailure, PaymentGrace, PaymentRetry, Subscription
from tasks.money import format_amount
from tasks.notifications.notify import notify_admin, notify_customer
from tasks.orders import access
from tasks.payloads import StripeEvent, parse, require

FAILURE_KINDS = ("payment_failed", "payment_action_required", "subscription_suspended")
RECOVERED = "payment_recovered"
# A payment attempt that needs confirmation is reported by two events: payment_failed and payment_action_required.
SAME_ATTEMPT_SECONDS = 60


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


def retry_payment(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Retry the payment of an invoice, if the retry is still planned. A declined card is an outcome, not an error."""
    key = str(attempt.args["invoice"]), int(attempt.args["number"])
    retry = dunning.select_planned(db, PaymentRetry, key)
    if retry is None:
        return []
    state, code, found = invoice_retry.retry_payment(attempt, db, retry)
    invoice = invoices.snapshot_from_stripe(attempt, found)
    subscription = subscriptions.fetch_current(attempt, db, invoice.object.subscription_id, 0)
    retry = dunning.select_planned(db, PaymentRetry, key)
    if retry is None:
        return []
    retry.state, retry.decline_code, retry.done_at = state, code, attempt.now
    return _apply(attempt, db, invoice, subscription)[1]


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
    return [*jobs, *_end_dunning(attempt, db, db.get_one(Invoice, key[0]))]


def _failed(attempt: Attempt, db: Session, kind: str) -> list[FollowUp]:
    event = parse(attempt.event.body, StripeEvent[InvoiceObject])
    from_event = invoices.snapshot_from_event(attempt, event, "open")
    current = invoices.fetch_current(attempt, db, from_event)
    subscription = subscriptions.fetch_current(attempt, db, current.object.subscription_id, from_event.version.at)
    code = invoices.decline_reason(attempt, current)
    failure = _failure_values(attempt, event, kind, code)
    insert_if_new(db, PaymentFailure, **failure)
    newest = not _failure_exists(db, from_event, PaymentFailure.created > failure["created"])
    if newest:
        dunning.resolve_pending_retry(attempt, db, failure["invoice"])
    invoice, jobs = _apply(attempt, db, current, subscription)
    repeats = _failure_exists(
        db,
        from_event,
        PaymentFailure.kind != kind,
        PaymentFailure.created.between(
            failure["created"] - SAME_ATTEMPT_SECONDS, failure["created"] + SAME_ATTEMPT_SECONDS
        ),
    )
    if repeats and kind == "payment_action_required":
        _switch_to_confirmation(db, invoice)
    if not newest or repeats or not _is_payable(db, invoice):
        return jobs
    return [_notify_customer(attempt, db, kind, invoice), *jobs]


def _settled(attempt: Attempt, db: Session, state: str) -> list[FollowUp]:
    event = parse(attempt.event.body, StripeEvent[InvoiceObject])
    from_event = invoices.snapshot_from_event(attempt, event, state)
    current = invoices.fetch_current(attempt, db, from_event)
    subscription = subscriptions.fetch_current(attempt, db, current.object.subscription_id, from_event.version.at)
    return _apply(attempt, db, current, subscription)[1]


def _failure_values(attempt: Attempt, event: StripeEvent[InvoiceObject], kind: str, code: str | None) -> dict[str, Any]:
    invoice = event.data.object
    return {
        "event_id": attempt.event.id,
        "kind": kind,
        "invoice": invoice.id,
        "customer": invoice.customer_id,
        "subscription": invoice.subscription_id,
        "amount_due": invoice.amount_due,
        "currency": invoice.currency,
        "attempt_count": invoice.attempt_count,
        "decline_code": code,
        "hosted_invoice_url": invoice.hosted_invoice_url,
        "created": require(event.created, "created"),
        "recorded_at": attempt.now,
    }


def _failure_exists(db: Session, snapshot: InvoiceSnapshot, *conditions: Any) -> bool:
    found = exists().where(PaymentFailure.invoice == snapshot.object.id, *conditions)
    return bool(db.scalar(select(found)))


def _apply(
    attempt: Attempt, db: Session, new: InvoiceSnapshot, subscription: SubscriptionSnapshot | None
) -> tuple[Invoice, list[FollowUp]]:
    """Store the new facts and recompute what depends on them; returns the invoice's row and the jobs to enqueue."""
    invoice = invoices.upsert_snapshot(attempt, db, new)
    if invoice.subscription is None:
        jobs = subscriptions.recompute(attempt, db, Invoice.id == invoice.id, None)
        return invoice, [*_notify_recovered(attempt, db, invoice), *jobs]
    known = subscription or SubscriptionSnapshot(invoice.customer)
    row = subscriptions.upsert_snapshot(attempt, db, invoice.subscription, known)
    before = row.status
    access.lock_entitlements(db, invoice=invoice.id)  # a concurrent refund may name only the invoice
    jobs = subscriptions.recompute(attempt, db, Invoice.subscription == row.id, row)
    return invoice, [*_notify_recovered(attempt, db, invoice, restored=before == SUSPENDED != row.status), *jobs]


def _switch_to_confirmation(db: Session, invoice: Invoice) -> None:
    """If the failure message of this attempt is still unsent, change it to the one that asks for confirmation."""
    unsent = select(Notification).filter_by(about=invoice.id, kind="payment_failed", state="owed")
    newest = db.scalars(unsent.order_by(Notification.created_at.desc()).limit(1)).first()
    if newest is not None:
        newest.kind = "payment_action_required"


def _is_payable(db: Session, invoice: Invoice) -> bool:
    row = db.get(Subscription, invoice.subscription) if invoice.subscription else None
    status = row.stripe_status if row is not None else None
    return invoice.state == "open" and status not in FINAL and not dunning.is_sign_up_invoice(invoice, status)


def _refetch(attempt: Attempt, db: Session, invoice: str) -> list[FollowUp]:
    """With an API key: fetch the invoice and its subscription, and apply them."""
    if not attempt.settings.stripe_api_key:
        return []
    try:
        with outside_transaction(db):
            found = stripe.fetch_invoice(attempt, invoice)
    except stripe.Refused:
        return []
    snapshot = invoices.snapshot_from_stripe(attempt, found)
    subscription = subscriptions.fetch_current(attempt, db, snapshot.object.subscription_id, 0)
    return _apply(attempt, db, snapshot, subscription)[1]


def _end_dunning(attempt: Attempt, db: Session, invoice: Invoice) -> list[FollowUp]:
    row = select_for_update(db, Subscription, invoice.subscription) if invoice.subscription else None
    before = row.status if row else None
    selected = Invoice.subscription == row.id if row else Invoice.id == invoice.id
    jobs = subscriptions.recompute(attempt, db, selected, row)
    notifications = [_notify_admin(attempt, db, invoice)]
    if row is not None and row.status == SUSPENDED != before:
        notifications.append(_notify_customer(attempt, db, "subscription_suspended", invoice))
    return [*notifications, *jobs]


def _notify_customer(attempt: Attempt, db: Session, kind: str, invoice: Invoice) -> FollowUp:
    amount = invoice.amount_due if kind == RECOVERED else invoice.amount_remaining
    return notify_customer(
        db,
        attempt,
        kind,
        invoice.email,
        phone=invoice.phone,
        customer=invoice.customer,
        about=invoice.id,
        invoice=invoice.number or invoice.id,
        amount=format_amount(amount, invoice.currency),
        link=invoice.hosted_invoice_url or "",
    )


def _notify_admin(attempt: Attempt, db: Session, invoice: Invoice) -> FollowUp:
    return notify_admin(
        db,
        attempt,
        "payment_given_up",
        about=invoice.id,
        invoice=invoice.id,
        customer=invoice.customer,
        subscription=invoice.subscription or "none",
        amount=format_amount(invoice.amount_remaining, invoice.currency),
    )


def _notify_recovered(attempt: Attempt, db: Session, invoice: Invoice, *, restored: bool = False) -> list[FollowUp]:
    """Notify the customer once per paid invoice, if a failure was announced or a suspension was lifted (`restored`)."""
    sent = set(db.scalars(select(Notification.kind).filter_by(about=invoice.id)))
    if invoice.state != "paid" or RECOVERED in sent or not (restored or sent.intersection(FAILURE_KINDS)):
        return []
    return [_notify_customer(attempt, db, RECOVERED, invoice)]
