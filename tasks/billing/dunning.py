"""Dunning of an invoice: retries by our schedule, then a grace period.

The rows PaymentRetry and PaymentGrace hold the plan. A delayed job whose row is no longer planned does nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from settings import Settings
from tasks.billing.subscription_state import is_sign_up, next_retry_number, should_start_grace
from tasks.clients.stripe import Origin
from tasks.db.locking import insert_if_new, select_for_update
from tasks.handler import Attempt, FollowUp
from tasks.ingest import stripe_ordering_key
from tasks.models import Invoice, PaymentFailure, PaymentGrace, PaymentRetry
from tasks.payloads import parse
from tasks.routes import END_GRACE_PERIOD, RETRY_PAYMENT, effect_of

Plan = TypeVar("Plan", PaymentRetry, PaymentGrace)
LOST_AFTER = timedelta(days=1)  # longer than all attempts of a job take
# Failed invoices that are open or written off. A write-off does not restore access; a newer paid renewal does.
FAILING = Invoice.state.in_(("open", "uncollectible")) & exists().where(PaymentFailure.invoice == Invoice.id)


def retry_schedule(settings: Settings) -> tuple[int, ...]:
    """Seconds from one retry to the next; empty if Stripe does the retries."""
    return settings.payment_retry_schedule if settings.stripe_api_key else ()


def plan_next_step(attempt: Attempt, db: Session, invoice: Invoice, *, unpaid: bool) -> list[FollowUp]:
    """Plan the next retry or the grace period of a failing invoice, unless it is planned already.

    `unpaid`: Stripe's status of its subscription is unpaid.
    """
    written_off = invoice.state == "uncollectible"
    schedule = () if invoice.sent or written_off else retry_schedule(attempt.settings)
    last = newest_retry(db, invoice.id)
    if schedule and last is not None and _is_lost(attempt, last):
        return [_enqueue_again(attempt, RETRY_PAYMENT, invoice, last)]
    retry = (last.number, last.state) if last else None
    number = next_retry_number(schedule, retry)
    if number is not None:
        return _plan_retry(attempt, db, invoice, number, schedule[number - 1])
    if should_start_grace(schedule, retry, unpaid or written_off or invoice.last_try):
        return _plan_grace(attempt, db, invoice)
    if not schedule:  # a newer event shows that Stripe will retry after all
        _cancel(attempt, db, PaymentGrace, PaymentGrace.invoice == invoice.id)
    return []


def is_sign_up_invoice(invoice: Invoice, stripe_status: str | None) -> bool:
    """Whether it is the first invoice of a subscription that has not started: it gets no dunning."""
    return is_sign_up(stripe_status, invoice.billing_reason, sent=invoice.sent)


def cancel_settled(attempt: Attempt, db: Session, selected: ColumnElement[bool], failing: list[Invoice]) -> None:
    """Cancel planned retries of invoices that are not collected any more, and grace periods of settled ones.

    `selected`: the invoices to look at; `failing`: those of them that still fail.
    """
    collected = [invoice.id for invoice in failing if invoice.state == "open" and not invoice.sent]
    for table, ongoing in ((PaymentRetry, collected), (PaymentGrace, [invoice.id for invoice in failing])):
        settled = select(Invoice.id).where(selected, Invoice.id.not_in(ongoing))
        _cancel(attempt, db, table, table.invoice.in_(settled))


def newest_retry(db: Session, invoice: str) -> PaymentRetry | None:
    newest_first = select(PaymentRetry).filter_by(invoice=invoice).order_by(PaymentRetry.number.desc())
    return db.scalars(newest_first.limit(1)).first()


def select_planned(db: Session, table: type[Plan], key: tuple[str, int]) -> Plan | None:
    """The row, locked, if it is still planned; else None. `key`: (invoice, number)."""
    row = select_for_update(db, table, key)
    return row if row is not None and row.state == "planned" else None


def resolve_pending_retry(attempt: Attempt, db: Session, invoice: str) -> None:
    """A failure reported while a retry is pending at the bank is the outcome of that retry."""
    last = newest_retry(db, invoice)
    if last is not None and last.state == "pending":
        last.state, last.done_at = "declined", attempt.now
        db.flush()


def _plan_retry(attempt: Attempt, db: Session, invoice: Invoice, number: int, delay_seconds: int) -> list[FollowUp]:
    due_at = attempt.now + timedelta(seconds=delay_seconds)
    if not insert_if_new(db, PaymentRetry, invoice=invoice.id, number=number, state="planned", due_at=due_at):
        return []
    return [_follow_up(attempt, RETRY_PAYMENT, invoice, number, delay_seconds)]


def _plan_grace(attempt: Attempt, db: Session, invoice: Invoice) -> list[FollowUp]:
    """Plan a grace period, unless one is planned or over. After a cancelled one, a new one may start."""
    newest_first = select(PaymentGrace).filter_by(invoice=invoice.id).order_by(PaymentGrace.number.desc())
    last = db.scalars(newest_first.limit(1)).first()
    if last is not None and _is_lost(attempt, last):
        return [_enqueue_again(attempt, END_GRACE_PERIOD, invoice, last)]
    if last is not None and last.state != "cancelled":
        return []
    number = last.number + 1 if last else 1
    now = int(attempt.now.timestamp())
    delay_seconds = max(invoice.due_date or now, now) - now + attempt.settings.payment_grace_seconds
    due_at = attempt.now + timedelta(seconds=delay_seconds)
    if not insert_if_new(db, PaymentGrace, invoice=invoice.id, number=number, state="planned", due_at=due_at):
        return []
    return [_follow_up(attempt, END_GRACE_PERIOD, invoice, number, delay_seconds)]


def _is_lost(attempt: Attempt, row: PaymentRetry | PaymentGrace) -> bool:
    """Whether the job of a planned row is lost (dead, or lost with the record). If it is only late, no harm is done."""
    return row.state == "planned" and attempt.now - row.due_at > LOST_AFTER


def _enqueue_again(attempt: Attempt, task: str, invoice: Invoice, row: PaymentRetry | PaymentGrace) -> FollowUp:
    """A second job for a planned row. The first one to run does the work; the other finds nothing planned."""
    row.due_at = attempt.now
    return _follow_up(attempt, task, invoice, row.number, 0)


def _follow_up(attempt: Attempt, task: str, invoice: Invoice, number: int, delay_seconds: int) -> FollowUp:
    """A delayed job. It shares the ordering key of its customer's events, so that it never runs beside them."""
    origin = parse(attempt.event.body, Origin)
    return FollowUp(
        f"{effect_of(task)}.{invoice.id}.{number}",
        task,
        {"invoice": invoice.id, "number": number},
        delay_seconds=delay_seconds,
        ordering_key=stripe_ordering_key(origin.account or origin.context, invoice.customer),
    )


def _cancel(
    attempt: Attempt, db: Session, table: type[PaymentRetry] | type[PaymentGrace], selected: ColumnElement[bool]
) -> None:
    db.execute(update(table).where(selected, table.state == "planned").values(state="cancelled", done_at=attempt.now))
