"""Dunning of an invoice: retries by our schedule, then a grace period.

The rows PaymentRetry and PaymentGrace hold the plan. A delayed job whose row is no longer planned does nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.orm import Session

from settings import Settings
from tasks.billing import announcements
from tasks.billing.collection import IN_FLIGHT, CollectionFacts, Step, declined, next_step, will_try
from tasks.billing.failures import HAS_FAILED, last_failure_at
from tasks.billing.subscription_state import FINAL, is_outweighed, is_sign_up
from tasks.connected_accounts import account_of
from tasks.db.locking import insert_if_new, select_for_update
from tasks.handler import Attempt, FollowUp
from tasks.ingest import stripe_ordering_key
from tasks.models import Invoice, PaymentGrace, PaymentRetry, Subscription
from tasks.orders.stored_ownership import is_invoice_ours
from tasks.routes import END_GRACE_PERIOD, RETRY_PAYMENT, effect_of

Plan = TypeVar("Plan", PaymentRetry, PaymentGrace)
LOST_AFTER = timedelta(days=1)  # longer than all attempts of a job take
# Open or written off, unless a person has forgiven the debt.
UNPAID = Invoice.state.in_(("open", "uncollectible")) & ~Invoice.forgiven
FAILING = UNPAID & HAS_FAILED


def retry_schedule(settings: Settings) -> tuple[int, ...]:
    """Seconds from one retry to the next; empty if Stripe does the retries."""
    return settings.payment_retry_schedule if settings.stripe_api_key else ()


def unpaid_invoices(db: Session, selected: ColumnElement[bool]) -> list[Invoice]:
    """The selected invoices that failed, and are neither settled nor forgiven."""
    return list(db.scalars(select(Invoice).where(selected, FAILING).order_by(Invoice.id)))


def select_failing(settings: Settings, db: Session, unpaid: list[Invoice], row: Subscription | None) -> list[Invoice]:
    """Those of the unpaid invoices that have dunning. `row` is their subscription, None if they have none.

    None of an ended subscription: Stripe collects nothing for it any more. None of another site. A write-off ends the
    dunning once Stripe has the subscription in order.
    """
    status, observed_at = (row.stripe_status, row.seen_created) if row else (None, 0)
    if status in FINAL:
        return []
    return [
        one
        for one in unpaid
        if is_invoice_ours(settings, one, row)
        and not is_sign_up_invoice(one, status)
        and not (one.state == "uncollectible" and is_outweighed(status, observed_at, last_failure_at(db, one.id)))
    ]


def is_given_up(db: Session, invoice: str) -> bool:
    """Whether a grace period of this invoice is over."""
    return bool(db.scalar(select(exists().where(PaymentGrace.invoice == invoice, PaymentGrace.state == "over"))))


def plan_next_step(attempt: Attempt, db: Session, invoice: Invoice, row: Subscription | None) -> list[FollowUp]:
    """Plan the next retry or the grace period of a failing invoice, unless it is planned already.

    `row` is its subscription. Planned retries are cancelled when Stripe is going to collect the invoice itself, or
    when collection is switched off.
    """
    schedule = retry_schedule(attempt.settings)
    last = newest_retry(db, invoice.id)
    known = _collection(attempt, db, invoice, row)
    if last is not None and last.state == "planned" and last.method is None and (known.stripe_will_try or known.held):
        _cancel(attempt, db, PaymentRetry, (PaymentRetry.invoice == invoice.id) & PaymentRetry.method.is_(None))
        db.refresh(last)
        known = _collection(attempt, db, invoice, row)
    if last is not None and _is_lost(attempt, last):
        return [_enqueue_again(attempt, last, invoice.customer)]
    step = next_step(schedule, known)
    if step is Step.RETRY:
        return plan_retry(attempt, db, invoice, schedule[declined(known.retries)])
    if step is Step.GRACE:
        jobs = plan_grace(attempt, db, invoice.id, invoice.customer, invoice.due_date)
        return [*_announce(attempt, db, invoice, jobs), *jobs]
    if not known.in_flight:  # a newer event shows that Stripe will retry after all
        _cancel(attempt, db, PaymentGrace, PaymentGrace.invoice == invoice.id)
    return []


def _announce(attempt: Attempt, db: Session, invoice: Invoice, planned: list[FollowUp]) -> list[FollowUp]:
    """Tell the customer of a grace period that is new; not of one whose job was lost."""
    numbers = [int(job.args["number"]) for job in planned if job.delay_seconds]
    return [announcements.announce_last_failure(attempt, db, invoice, number) for number in numbers]


def _collection(attempt: Attempt, db: Session, invoice: Invoice, row: Subscription | None) -> CollectionFacts:
    status = row.stripe_status if row else None
    retries = db.scalars(select(PaymentRetry).filter_by(invoice=invoice.id).order_by(PaymentRetry.number)).all()
    for_update = invoice.billing_reason == "subscription_update"
    return CollectionFacts(
        written_off=invoice.state == "uncollectible",
        sent=invoice.sent,
        stripe_will_try=will_try(invoice.next_try, attempt.now.timestamp()) and status != "unpaid",
        stripe_is_done=invoice.last_try or status == "unpaid" or (invoice.sent and status == "past_due"),
        held=not invoice.auto_advance or (for_update and row is not None and row.pending_update),
        retries=[retry.state for retry in retries if retry.method is None],
        in_flight=any(retry.state in IN_FLIGHT for retry in retries),
    )


def is_sign_up_invoice(invoice: Invoice, stripe_status: str | None) -> bool:
    """Whether it is the first invoice of a subscription that has not started: it gets no dunning."""
    return is_sign_up(stripe_status, invoice.billing_reason, sent=invoice.sent)


def cancel_settled(
    attempt: Attempt, db: Session, selected: ColumnElement[bool], failing: list[Invoice], unknown: Collection[str] = ()
) -> None:
    """Cancel planned retries of invoices that are not collected any more, and grace periods of settled ones.

    `selected`: the invoices to look at; `failing`: those of them that still fail; `unknown`: further ids that may have
    a grace period, although no invoice with them is known.
    """
    collected = [invoice.id for invoice in failing if invoice.state == "open" and not invoice.sent]
    settled = select(Invoice.id).where(selected, Invoice.id.not_in(collected))
    _cancel(attempt, db, PaymentRetry, PaymentRetry.invoice.in_(settled))
    settled = select(Invoice.id).where(selected, Invoice.id.not_in([invoice.id for invoice in failing]))
    _cancel(attempt, db, PaymentGrace, PaymentGrace.invoice.in_(settled) | PaymentGrace.invoice.in_(unknown))


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


def plan_retry(
    attempt: Attempt, db: Session, invoice: Invoice, delay_seconds: int, method: str | None = None
) -> list[FollowUp]:
    """Plan the next retry, `delay_seconds` from now. `method`: the new payment method that it is for."""
    last = newest_retry(db, invoice.id)
    key = invoice.id, last.number + 1 if last else 1
    return _plan(attempt, db, PaymentRetry, key, customer=invoice.customer, delay_seconds=delay_seconds, method=method)


def plan_grace(attempt: Attempt, db: Session, invoice: str, customer: str, due_date: int | None) -> list[FollowUp]:
    """Plan a grace period from now, or from `due_date`, if that is later; unless one is planned or over.

    After a cancelled one, a new one may start.
    """
    newest_first = select(PaymentGrace).filter_by(invoice=invoice).order_by(PaymentGrace.number.desc())
    last = db.scalars(newest_first.limit(1)).first()
    if last is not None and _is_lost(attempt, last):
        return [_enqueue_again(attempt, last, customer)]
    if last is not None and last.state != "cancelled":
        return []
    now = int(attempt.now.timestamp())
    delay_seconds = max(due_date or now, now) - now + attempt.settings.payment_grace_seconds
    key = invoice, last.number + 1 if last else 1
    return _plan(attempt, db, PaymentGrace, key, customer=customer, delay_seconds=delay_seconds)


def _plan(
    attempt: Attempt,
    db: Session,
    table: type[Plan],
    key: tuple[str, int],
    *,
    customer: str,
    delay_seconds: int,
    **values: str | None,
) -> list[FollowUp]:
    """Insert a planned row, `key` is (invoice, number), unless another job has done so; returns its delayed job."""
    due_at = attempt.now + timedelta(seconds=delay_seconds)
    new = insert_if_new(db, table, invoice=key[0], number=key[1], state="planned", due_at=due_at, **values)
    return [_follow_up(attempt, table, key, customer, delay_seconds)] if new else []


def _is_lost(attempt: Attempt, row: PaymentRetry | PaymentGrace) -> bool:
    """Whether the job of a planned row is lost (dead, or lost with the record). If it is only late, no harm is done."""
    return row.state == "planned" and attempt.now - row.due_at > LOST_AFTER


def _enqueue_again(attempt: Attempt, row: PaymentRetry | PaymentGrace, customer: str) -> FollowUp:
    """A second job for a planned row. The first one to run does the work; the other finds nothing planned."""
    row.due_at = attempt.now
    return _follow_up(attempt, type(row), (row.invoice, row.number), customer, 0)


def _follow_up(
    attempt: Attempt,
    table: type[PaymentRetry] | type[PaymentGrace],
    key: tuple[str, int],
    customer: str,
    delay_seconds: int,
) -> FollowUp:
    """The job of a planned row. It never runs beside an event of its customer, as it has the same ordering key."""
    task = RETRY_PAYMENT if table is PaymentRetry else END_GRACE_PERIOD
    return FollowUp(
        f"{effect_of(task)}.{key[0]}.{key[1]}",
        task,
        {"invoice": key[0], "number": key[1]},
        delay_seconds=delay_seconds,
        ordering_key=stripe_ordering_key(account_of(attempt), customer),
    )


def _cancel(
    attempt: Attempt, db: Session, table: type[PaymentRetry] | type[PaymentGrace], selected: ColumnElement[bool]
) -> None:
    db.execute(update(table).where(selected, table.state == "planned").values(state="cancelled", done_at=attempt.now))
