"""Enqueues the messages about payments, one per fact. messages.py decides about them when they are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from tasks.billing.subscription_state import FINAL
from tasks.handler import Attempt, FollowUp
from tasks.models import Invoice, Notification, Subscription
from tasks.notifications.notify import notify_admin, notify_customer

FAILURES = ("payment_failed", "payment_action_required", "subscription_suspended")
RECOVERED = "payment_recovered"
# Built once, as the next two are asked at every payment and every failure.
KINDS = select(Notification.kind).where(Notification.about == bindparam("about"))
FAILURE_MESSAGES = select(Notification.params, Notification.state).where(
    Notification.about == bindparam("about"), Notification.kind == "payment_failed", Notification.state != "obsolete"
)
# Stripe's reasons to pause a subscription by itself: https://docs.stripe.com/changelog/endive/2026-09-30
PAUSED_FOR_PAYMENT = frozenset({"first_payment_failure", "final_payment_failure"})
# Visa's rule for trials: a reminder at least 7 days before the first payment (support.stripe.com, "2020 Visa trial
# subscription requirement changes guide"). Stripe's own event, which is used for shorter trials, comes 3 days before.
TRIAL_REMINDER_SECONDS = 7 * 86400


def announce_failure(attempt: Attempt, db: Session, invoice: Invoice, number: int) -> list[FollowUp]:
    """Notify the customer of failed attempt `number`, unless it is the last one: that has a message of its own.

    An attempt that needs a confirmation is reported by two events, and has one message.
    """
    messages = db.execute(FAILURE_MESSAGES, {"about": invoice.id}).all()
    if any("grace" in row.params or (row.params.get("number") == number and row.state != "owed") for row in messages):
        return []
    return [_to_customer(attempt, db, "payment_failed", invoice, count=number, number=number)]


def announce_last_failure(attempt: Attempt, db: Session, invoice: Invoice, grace: int) -> FollowUp:
    """Notify the customer that grace period `grace` has begun; if they pay the invoice by hand, once it is due."""
    now = int(attempt.now.timestamp())
    delay_seconds = max((invoice.due_date or now) - now, 0) if invoice.sent else 0
    about: dict[str, Any] = {"count": f"last{grace}", "grace": grace, "delay_seconds": delay_seconds}
    return _to_customer(attempt, db, "payment_failed", invoice, **about)


def announce_given_up(
    attempt: Attempt, db: Session, grace: int, *, invoice: str, customer: str, suspended: bool
) -> list[FollowUp]:
    """Notify the administrator that grace period `grace` is over, and the customer, if they are now suspended."""
    about: dict[str, Any] = {"about": invoice, "count": grace}
    jobs = [notify_admin(db, attempt, "payment_given_up", invoice=invoice, **about)]
    if suspended:
        jobs.append(notify_customer(db, attempt, "subscription_suspended", customer=customer, **about))
    return jobs


def is_paused_for_payment(subscription: Subscription) -> bool:
    """Whether Stripe has paused it because a payment failed."""
    return subscription.stripe_status == "paused" and subscription.paused_because in PAUSED_FOR_PAYMENT


def announce_pause(
    attempt: Attempt, db: Session, subscription: Subscription, failing: Sequence[Invoice]
) -> list[FollowUp]:
    """Notify the customer once per invoice that Stripe has paused the subscription because it was not paid.

    The end of the grace period, days later, brings no second message.
    """
    if not is_paused_for_payment(subscription):
        return []
    announced = set(
        db.scalars(
            select(Notification.about)
            .filter_by(kind="subscription_suspended")
            .where(Notification.about.in_([one.id for one in failing]))
        )
    )
    newest = max(failing, key=lambda one: (one.created, one.id), default=None)
    if newest is None or newest.id in announced:
        return []
    return [_to_customer(attempt, db, "subscription_suspended", newest, count="paused")]


def announce_end(attempt: Attempt, db: Session, subscription: Subscription) -> FollowUp:
    """Notify the customer that the subscription was cancelled because it was not paid."""
    return notify_customer(db, attempt, "subscription_ended", customer=subscription.customer, about=subscription.id)


def announce_payment(attempt: Attempt, db: Session, invoice: Invoice, *, restored: bool) -> list[FollowUp]:
    """Notify the customer once per paid invoice, if a failure was announced or a suspension was lifted (`restored`).

    If its subscription has ended, the administrator is notified too: somebody must repay it or make good for it.
    """
    if invoice.state != "paid":
        return []
    kinds = set(db.scalars(KINDS, {"about": invoice.id}))
    found = []
    if RECOVERED not in kinds and (restored or kinds.intersection(FAILURES)):
        found.append(_to_customer(attempt, db, RECOVERED, invoice))
    row = db.get(Subscription, invoice.subscription) if invoice.subscription else None
    if (
        row is not None
        and row.stripe_status in FINAL
        and kinds.intersection(FAILURES)
        and "paid_after_end" not in kinds
    ):
        found.append(notify_admin(db, attempt, "paid_after_end", about=invoice.id))
    return found


def plan_trial_reminder(attempt: Attempt, db: Session, row: Subscription) -> list[FollowUp]:
    """Plan the reminder of the end of a trial, once, if it ends in more than seven days."""
    ends_at = int((row.terms or {}).get("trial_end") or 0)
    delay_seconds = ends_at - TRIAL_REMINDER_SECONDS - int(attempt.now.timestamp())
    if row.stripe_status != "trialing" or delay_seconds <= 0 or _is_known(db, row.id, ends_at):
        return []
    return [announce_trial_end(attempt, db, row, ends_at, delay_seconds)]


def announce_trial_end(
    attempt: Attempt, db: Session, row: Subscription, ends_at: int, delay_seconds: int = 0
) -> FollowUp:
    """Remind the customer of the end of a trial, once per end (seconds since 1970)."""
    about: dict[str, Any] = {"customer": row.customer, "about": row.id, "count": ends_at, "ends_at": ends_at}
    return notify_customer(db, attempt, "trial_will_end", delay_seconds=delay_seconds, **about)


def _is_known(db: Session, subscription: str, ends_at: int) -> bool:
    rows = db.scalars(select(Notification).filter_by(about=subscription, kind="trial_will_end"))
    return any(row.params.get("ends_at") == ends_at for row in rows)


def _to_customer(attempt: Attempt, db: Session, kind: str, invoice: Invoice, **about: Any) -> FollowUp:
    known: dict[str, Any] = {"phone": invoice.phone, "customer": invoice.customer, "about": invoice.id}
    return notify_customer(db, attempt, kind, invoice.email, **known, **about)
