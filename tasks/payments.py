"""Failed payments: record them, tell the customer, try again by our own schedule, and in the end suspend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from tasks.clients import stripe
from tasks.handling import Attempt, FollowUp
from tasks.models import Entitlement, PaymentFailure, PaymentRetry, Subscription
from tasks.money import amount_text
from tasks.notifications import notify_admin, notify_customer
from tasks.payloads import Id, Ref, Text, Whole, need, read, ref
from tasks.rows import insert_if_new, locked

SETTLED = frozenset({"paid", "void", "uncollectible"})  # invoices that nobody has to pay any more


class SubscriptionDetails(Struct):
    subscription: Ref = None


class Parent(Struct):
    subscription_details: SubscriptionDetails | None = None


class Invoice(Struct):
    """What we use of Stripe's invoice, by old API versions (`subscription`) and new ones (`parent`)."""

    id: Id | None = None
    customer: Ref = None
    customer_email: Text | None = None
    customer_phone: Text | None = None
    subscription: Ref = None
    parent: Parent | None = None
    amount_due: Whole | None = None
    currency: Text | None = None
    attempt_count: Whole = 0
    hosted_invoice_url: Text | None = None

    @property
    def subscription_id(self) -> str | None:
        details = self.parent.subscription_details if self.parent else None
        return ref(details.subscription if details else None) or ref(self.subscription)


class InvoiceData(Struct):
    object: Invoice


class InvoiceEvent(Struct):
    data: InvoiceData
    created: Whole | None = None


def payment_failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """invoice.payment_failed: the failure is recorded, the subscription past due, the customer told, a retry planned.

    An event that came after a newer one of the same subscription or invoice is recorded and changes nothing else.
    """
    event = read(attempt.event.body, InvoiceEvent)
    failure = _failure(attempt, event)
    email = event.data.object.customer_email or _look_up_email(attempt, db, failure["customer"])
    insert_if_new(db, PaymentFailure, **failure)
    _mark_past_due(attempt, db, failure)
    newest = _newest_failure(db, failure["invoice"])
    if newest is None or newest.event_id != attempt.event.id:
        return []
    told = notify_customer(
        db,
        attempt,
        "payment_failed",
        email,
        phone=event.data.object.customer_phone,
        invoice=newest.invoice,
        amount=amount_text(newest.amount_due, newest.currency),
        link=newest.hosted_invoice_url or "",
    )
    return [told, *_plan_retry(attempt, db, newest)]


def retry_payment(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Try to collect an invoice once more, unless it needs no payment now. A declined card is an outcome, no error."""
    invoice, number = str(attempt.args["invoice"]), int(attempt.args["number"])
    state, code = _collect(attempt, db, invoice)
    retry = locked(db, PaymentRetry, (invoice, number))
    failure = _newest_failure(db, invoice)
    if retry is None or retry.state != "planned" or failure is None:
        return []
    retry.state, retry.decline_code, retry.done_at = state, code, attempt.now
    return _plan_retry(attempt, db, failure) if state == "declined" else []


def _failure(attempt: Attempt, event: InvoiceEvent) -> dict[str, Any]:
    invoice = event.data.object
    return {
        "event_id": attempt.event.id,
        "invoice": need(invoice.id, "data.object.id"),
        "customer": need(ref(invoice.customer), "data.object.customer"),
        "subscription": invoice.subscription_id,
        "amount_due": need(invoice.amount_due, "data.object.amount_due"),
        "currency": need(invoice.currency, "data.object.currency"),
        "attempt_count": invoice.attempt_count,
        "hosted_invoice_url": invoice.hosted_invoice_url,
        "created": need(event.created, "created"),
        "recorded_at": attempt.now,
    }


def _look_up_email(attempt: Attempt, db: Session, customer: str) -> str | None:
    if not attempt.settings.stripe_api_key:
        return None
    db.commit()  # no transaction stays open over a call
    try:
        email = stripe.fetch_customer(attempt, customer).get("email")
    except stripe.Refused:  # deleted, for instance: then nobody knows an address
        return None
    return email if isinstance(email, str) else None


def _mark_past_due(attempt: Attempt, db: Session, failure: dict[str, Any]) -> None:
    seen = {"seen_created": failure["created"], "seen_event": attempt.event.id}
    values = {"customer": failure["customer"], "status": "past_due", "updated_at": attempt.now, **seen}
    if not failure["subscription"] or insert_if_new(db, Subscription, id=failure["subscription"], **values):
        return
    row = locked(db, Subscription, failure["subscription"])
    if row is None or (failure["created"], attempt.event.id) <= (row.seen_created, row.seen_event):
        return
    row.seen_created, row.seen_event, row.updated_at = failure["created"], attempt.event.id, attempt.now
    if row.status != "suspended":
        row.status = "past_due"


def _newest_failure(db: Session, invoice: str) -> PaymentFailure | None:
    newest_first = (PaymentFailure.created.desc(), PaymentFailure.event_id.desc())
    return db.scalars(select(PaymentFailure).filter_by(invoice=invoice).order_by(*newest_first).limit(1)).first()


def _plan_retry(attempt: Attempt, db: Session, failure: PaymentFailure) -> list[FollowUp]:
    """The invoice's next retry, or the end of its schedule.

    One chain per invoice: while a retry is planned, further reports of failure plan none, because Stripe also reports
    the failures of our own retries.
    """
    schedule = attempt.settings.payment_retry_schedule
    if not schedule or not attempt.settings.stripe_api_key:
        return []
    newest_first = select(PaymentRetry).filter_by(invoice=failure.invoice).order_by(PaymentRetry.number.desc())
    last = db.scalars(newest_first.limit(1)).first()
    if last is not None and last.state not in ("declined", "pending"):
        return []
    number = last.number + 1 if last else 1
    if number > len(schedule):
        return _give_up(attempt, db, failure)
    due_at = attempt.now + timedelta(seconds=schedule[number - 1])
    if not insert_if_new(db, PaymentRetry, invoice=failure.invoice, number=number, state="planned", due_at=due_at):
        return []
    return [
        FollowUp(
            f"payments.retry_payment.{number}",
            "tasks.payments.retry_payment",
            {"invoice": failure.invoice, "number": number},
            delay_seconds=schedule[number - 1],
            ordering_key=failure.subscription or failure.invoice,
        )
    ]


def _give_up(attempt: Attempt, db: Session, failure: PaymentFailure) -> list[FollowUp]:
    """The last retry failed: suspend, take the access away, tell the administrator; all of it once."""
    row = locked(db, Subscription, failure.subscription) if failure.subscription else None
    if row is not None and row.status != "suspended":
        row.status, row.updated_at = "suspended", attempt.now
        theirs = update(Entitlement).where(Entitlement.subscription == row.id, Entitlement.revoked_at.is_(None))
        db.execute(theirs.values(revoked_at=attempt.now))
    return [
        notify_admin(
            db,
            attempt,
            "payment_given_up",
            invoice=failure.invoice,
            customer=failure.customer,
            subscription=failure.subscription or "none",
            amount=amount_text(failure.amount_due, failure.currency),
        )
    ]


def _collect(attempt: Attempt, db: Session, invoice: str) -> tuple[str, str | None]:
    """(the retry's new state, the decline code): fetch the invoice, and pay it if it still needs that."""
    db.commit()  # no transaction stays open over a call
    if stripe.fetch_invoice(attempt, invoice).get("status") in SETTLED:
        return "stopped", None
    try:
        answer = stripe.pay_invoice(attempt, invoice)
    except stripe.Refused as refused:
        settled = stripe.fetch_invoice(attempt, invoice).get("status") in SETTLED  # paid in this very moment
        return ("stopped", None) if settled else ("declined", refused.code)
    if answer.get("status") == "paid":
        return "paid", None
    code = stripe.decline_of(attempt, answer)
    return ("declined", code) if code else ("pending", None)  # a bank debit takes days; an event will tell
