"""Payments of invoices: failed ones are recorded, told, tried again and in the end given up; a paid one undoes that.

An event only adds facts (the failure, the newest known of invoice and subscription); subscriptions.py derives
from them what should be, so that any order of arrival ends the same.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from tasks.billing import dunning, invoice_retry, invoices, subscriptions
from tasks.billing.invoices import InvoiceObject, InvoiceSnapshot
from tasks.billing.subscription_state import FINAL, SUSPENDED
from tasks.clients import stripe
from tasks.db.locking import insert_if_new, select_for_update
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, Notification, PaymentFailure, PaymentGrace, PaymentRetry, Subscription
from tasks.notifications.money import format_amount
from tasks.notifications.notify import notify_admin, notify_customer
from tasks.orders import access
from tasks.payloads import StripeEvent, parse, require

FAILURE_KINDS = ("payment_failed", "payment_action_required", "subscription_suspended")
RECOVERED = "payment_recovered"
SAME_ATTEMPT_SECONDS = 60  # one try that the customer must confirm is reported as failed and as in need of action


def payment_failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.payment_failed: recorded, the subscription past due, the customer told, a retry or the grace planned."""
    return _failed(attempt, db, "payment_failed")


def payment_action_required(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.payment_action_required: a failure that the customer can mend by confirming the payment."""
    return _failed(attempt, db, "payment_action_required")


def invoice_paid(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.paid and invoice.payment_succeeded: what the failures brought is undone, and the customer thanked."""
    return _settled(attempt, db, "paid")


def invoice_voided(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.voided: nobody has to pay it any more, so its dunning ends."""
    return _settled(attempt, db, "void")


def invoice_uncollectible(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.marked_uncollectible: written off, so nobody tries any more, and its grace time is the last."""
    return _settled(attempt, db, "uncollectible")


def retry_payment(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Try to collect an invoice once more, if that is still planned. A declined card is an outcome, no error."""
    key = str(attempt.args["invoice"]), int(attempt.args["number"])
    retry = dunning.select_planned(db, PaymentRetry, key)
    if retry is None:
        return []
    state, code, found = invoice_retry.retry_payment(attempt, db, retry)
    sight = invoices.snapshot_from_stripe(attempt, found)
    word = subscriptions.fetch_current(attempt, db, sight.object.subscription_id, 0)
    retry = dunning.select_planned(db, PaymentRetry, key)
    if retry is None:
        return []
    retry.state, retry.decline_code, retry.done_at = state, code, attempt.now
    return _apply(attempt, db, sight, word)[1]


def end_grace_period(attempt: Attempt, db: Session) -> list[FollowUp]:
    """The grace time is over: if the invoice is still to be paid, suspend and tell customer and administrator."""
    key = str(attempt.args["invoice"]), int(attempt.args["number"])
    if not dunning.select_planned(db, PaymentGrace, key):
        return []
    owed = _refetch(attempt, db, key[0])
    grace = dunning.select_planned(db, PaymentGrace, key)
    if grace is None:
        return owed
    grace.state, grace.done_at = "over", attempt.now
    return [*owed, *_end_dunning(attempt, db, db.get_one(Invoice, key[0]))]


def _failed(attempt: Attempt, db: Session, kind: str) -> list[FollowUp]:
    event = parse(attempt.event.body, StripeEvent[InvoiceObject])
    told = invoices.snapshot_from_event(attempt, event, "open")
    now = invoices.fetch_current(attempt, db, told)
    word = subscriptions.fetch_current(attempt, db, now.object.subscription_id, told.seen.at)
    code = invoices.decline_reason(attempt, now)
    failure = _failure_values(attempt, event, kind, code)
    insert_if_new(db, PaymentFailure, **failure)
    newest = not _failure_exists(db, told, PaymentFailure.created > failure["created"])
    if newest:
        dunning.resolve_pending_retry(attempt, db, failure["invoice"])
    invoice, owed = _apply(attempt, db, now, word)
    repeats = _failure_exists(
        db,
        told,
        PaymentFailure.kind != kind,
        PaymentFailure.created.between(
            failure["created"] - SAME_ATTEMPT_SECONDS, failure["created"] + SAME_ATTEMPT_SECONDS
        ),
    )
    if repeats and kind == "payment_action_required":
        _switch_to_confirmation(db, invoice)
    if not newest or repeats or not _is_payable(db, invoice):
        return owed
    return [_notify_customer(attempt, db, kind, invoice), *owed]


def _settled(attempt: Attempt, db: Session, state: str) -> list[FollowUp]:
    told = invoices.snapshot_from_event(attempt, parse(attempt.event.body, StripeEvent[InvoiceObject]), state)
    now = invoices.fetch_current(attempt, db, told)
    word = subscriptions.fetch_current(attempt, db, now.object.subscription_id, told.seen.at)
    return _apply(attempt, db, now, word)[1]


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


def _failure_exists(db: Session, told: InvoiceSnapshot, *which: Any) -> bool:
    same = exists().where(PaymentFailure.invoice == told.object.id, *which)
    return bool(db.scalar(select(same)))


def _apply(
    attempt: Attempt, db: Session, now: InvoiceSnapshot, word: subscriptions.SubscriptionSnapshot | None
) -> tuple[Invoice, list[FollowUp]]:
    """The new facts into their rows, and what follows from them."""
    invoice = invoices.upsert_snapshot(attempt, db, now)
    if invoice.subscription is None:
        owed = subscriptions.recompute(attempt, db, Invoice.id == invoice.id, None)
        return invoice, [*_notify_recovered(attempt, db, invoice), *owed]
    row = subscriptions.upsert_snapshot(
        attempt, db, invoice.subscription, word or subscriptions.SubscriptionSnapshot(invoice.customer)
    )
    before = row.status
    access.lock_entitlements(db, invoice=invoice.id)  # somebody may just now record a refund that names no more than it
    owed = subscriptions.recompute(attempt, db, Invoice.subscription == row.id, row)
    return invoice, [*_notify_recovered(attempt, db, invoice, restored=before == SUSPENDED != row.status), *owed]


def _switch_to_confirmation(db: Session, invoice: Invoice) -> None:
    """Of a try that wants confirming we knew only that it had failed: if nobody has been told so yet, say it right."""
    plain = select(Notification).filter_by(about=invoice.id, kind="payment_failed", state="owed")
    newest = db.scalars(plain.order_by(Notification.created_at.desc()).limit(1)).first()
    if newest is not None:
        newest.kind = "payment_action_required"


def _is_payable(db: Session, invoice: Invoice) -> bool:
    row = db.get(Subscription, invoice.subscription) if invoice.subscription else None
    word = row.stripe_status if row is not None else None
    return invoice.state == "open" and word not in FINAL and not dunning.is_sign_up_invoice(invoice, word)


def _refetch(attempt: Attempt, db: Session, invoice: str) -> list[FollowUp]:
    """With a key: what Stripe says of the invoice and its subscription just now, and what follows."""
    if not attempt.settings.stripe_api_key:
        return []
    try:
        with outside_transaction(db):
            found = stripe.fetch_invoice(attempt, invoice)
    except stripe.Refused:
        return []
    sight = invoices.snapshot_from_stripe(attempt, found)
    word = subscriptions.fetch_current(attempt, db, sight.object.subscription_id, 0)
    return _apply(attempt, db, sight, word)[1]


def _end_dunning(attempt: Attempt, db: Session, invoice: Invoice) -> list[FollowUp]:
    row = select_for_update(db, Subscription, invoice.subscription) if invoice.subscription else None
    before = row.status if row else None
    mine = Invoice.subscription == row.id if row else Invoice.id == invoice.id
    owed = subscriptions.recompute(attempt, db, mine, row)
    told = [_notify_admin(attempt, db, invoice)]
    if row is not None and row.status == SUSPENDED != before:
        told.append(_notify_customer(attempt, db, "subscription_suspended", invoice))
    return [*told, *owed]


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
    """Once per invoice, and only a customer who was told that it had failed, or whose suspension it `restored`."""
    told = set(db.scalars(select(Notification.kind).filter_by(about=invoice.id)))
    if invoice.state != "paid" or RECOVERED in told or not (restored or told.intersection(FAILURE_KINDS)):
        return []
    return [_notify_customer(attempt, db, RECOVERED, invoice)]
