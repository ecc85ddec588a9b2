"""Dunning of an invoice: retries by our schedule, then a grace period.

The rows PaymentRetry and PaymentGrace hold the plan. A delayed job whose row is no longer planned does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, bindparam, literal, or_, select, union_all, update
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
# The statements that nearly every event needs are built once. They are for all invoices of a subscription, or for one
# without any: the other id is NULL, which no column equals. Those of `recompute` do not flush: it has done so before,
# and they do not read the subscription.
SELECTED = (Invoice.subscription == bindparam("subscription")) | (Invoice.id == bindparam("invoice"))
FAILING_INVOICES = select(Invoice).where(SELECTED, FAILING).order_by(Invoice.id).execution_options(autoflush=False)
OF_INVOICE = PaymentRetry.invoice == bindparam("invoice")
RETRIES = select(PaymentRetry).where(OF_INVOICE).order_by(PaymentRetry.number).execution_options(populate_existing=True)
GRACES = select(PaymentGrace).where(PaymentGrace.invoice == bindparam("invoice"))
NEWEST_GRACE = GRACES.order_by(PaymentGrace.number.desc()).limit(1)
IS_GIVEN_UP = select(GRACES.where(PaymentGrace.state == "over").exists())


def _planned(table: type[PaymentRetry] | type[PaymentGrace]) -> Select[str, str]:
    """Selects a name and the invoice of each planned row of the table."""
    return select(literal(table.__tablename__), table.invoice).where(table.state == "planned")


PLANNED = union_all(
    *(
        _planned(table).join(Invoice, Invoice.id == table.invoice).where(SELECTED)
        for table in (PaymentRetry, PaymentGrace)
    ),
    # of which only the id is known
    _planned(PaymentGrace).where(
        or_(*(PaymentGrace.invoice == bindparam(name) for name in ("subscription", "latest_invoice")))
    ),
).execution_options(autoflush=False)


def retry_schedule(settings: Settings) -> tuple[int, ...]:
    """Seconds from one retry to the next; empty if Stripe does the retries."""
    return settings.payment_retry_schedule if settings.stripe_api_key else ()


def unpaid_invoices(db: Session, subscription: str | None, invoice: str | None) -> list[Invoice]:
    """The invoices of a subscription, or `invoice`, that failed and are neither settled nor forgiven."""
    return list(db.scalars(FAILING_INVOICES, {"subscription": subscription, "invoice": invoice}))


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
    return bool(db.scalar(IS_GIVEN_UP, {"invoice": invoice}))


def plan_next_step(attempt: Attempt, db: Session, invoice: Invoice, row: Subscription | None) -> list[FollowUp]:
    """Plan the next retry or the grace period of a failing invoice, unless it is planned already.

    `row` is its subscription. Planned retries are cancelled when Stripe is going to collect the invoice itself, or
    when collection is switched off.
    """
    schedule = retry_schedule(attempt.settings)
    retries = _load_retries(db, invoice.id)
    last = retries[-1] if retries else None
    known = _collection(attempt, invoice, row, retries)
    if last is not None and last.state == "planned" and last.method is None and (known.stripe_will_try or known.held):
        _cancel(attempt, db, PaymentRetry, (PaymentRetry.invoice == invoice.id) & PaymentRetry.method.is_(None))
        known = _collection(attempt, invoice, row, _load_retries(db, invoice.id))
    if last is not None and _is_lost(attempt, last):
        return [_enqueue_again(attempt, last, invoice.customer)]
    step = next_step(schedule, known)
    if step is Step.RETRY:
        return plan_retry(attempt, db, invoice, schedule[declined(known.retries)])
    if step is Step.GRACE:
        jobs = plan_grace(attempt, db, invoice.id, invoice.customer, invoice.due_date)
        return [*_announce(attempt, db, invoice, jobs), *jobs]
    grace = _newest_grace(db, invoice.id)
    if grace is not None and grace.state == "planned" and not known.in_flight:
        # a newer event shows that Stripe will retry after all
        _cancel(attempt, db, PaymentGrace, PaymentGrace.invoice == invoice.id)
    return []


def _announce(attempt: Attempt, db: Session, invoice: Invoice, planned: list[FollowUp]) -> list[FollowUp]:
    """Tell the customer of a grace period that is new; not of one whose job was lost."""
    numbers = [int(job.args["number"]) for job in planned if job.delay_seconds]
    return [announcements.announce_last_failure(attempt, db, invoice, number) for number in numbers]


def _collection(
    attempt: Attempt, invoice: Invoice, row: Subscription | None, retries: Sequence[PaymentRetry]
) -> CollectionFacts:
    status = row.stripe_status if row else None
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
    attempt: Attempt,
    db: Session,
    failing: list[Invoice],
    row: Subscription | None,
    invoice: str | None,
    *,
    overdue: str | None = None,
) -> None:
    """Cancel planned retries of invoices that are not collected any more, and grace periods of settled ones.

    The invoices are those of the subscription `row`, or `invoice`; `failing`: those of them that still fail; `overdue`:
    one that is owed without any failure. Under the ids of the subscription and its latest invoice there may be a grace
    period, although no such invoice is known.
    """
    ids = {"subscription": row.id if row else None, "latest_invoice": row.latest_invoice if row else None}
    planned = [(table, key) for table, key in db.execute(PLANNED, {**ids, "invoice": invoice})]
    collected = {one.id for one in failing if one.state == "open" and not one.sent}
    owed = {overdue, *(one.id for one in failing)}
    retries = {key for table, key in planned if table == PaymentRetry.__tablename__ and key not in collected}
    graces = {key for table, key in planned if table == PaymentGrace.__tablename__ and key not in owed}
    if retries:
        _cancel(attempt, db, PaymentRetry, PaymentRetry.invoice.in_(retries))
    if graces:
        _cancel(attempt, db, PaymentGrace, PaymentGrace.invoice.in_(graces))


def _load_retries(db: Session, invoice: str) -> Sequence[PaymentRetry]:
    """All retries of an invoice, the oldest first."""
    return db.scalars(RETRIES, {"invoice": invoice}).all()


def _newest_grace(db: Session, invoice: str) -> PaymentGrace | None:
    return db.scalars(NEWEST_GRACE, {"invoice": invoice}).one_or_none()


def select_planned(db: Session, table: type[Plan], key: tuple[str, int]) -> Plan | None:
    """The row, locked, if it is still planned; else None. `key`: (invoice, number)."""
    row = select_for_update(db, table, key)
    return row if row is not None and row.state == "planned" else None


def resolve_pending_retry(attempt: Attempt, db: Session, invoice: str) -> None:
    """A failure reported while a retry is pending at the bank is the outcome of that retry."""
    for last in _load_retries(db, invoice)[-1:]:
        if last.state == "pending":
            last.state, last.done_at = "declined", attempt.now
            db.flush()


def plan_retry(
    attempt: Attempt, db: Session, invoice: Invoice, delay_seconds: int, method: str | None = None
) -> list[FollowUp]:
    """Plan the next retry, `delay_seconds` from now. `method`: the new payment method that it is for."""
    retries = _load_retries(db, invoice.id)
    key = invoice.id, retries[-1].number + 1 if retries else 1
    return _plan(attempt, db, PaymentRetry, key, customer=invoice.customer, delay_seconds=delay_seconds, method=method)


def plan_grace(attempt: Attempt, db: Session, invoice: str, customer: str, due_date: int | None) -> list[FollowUp]:
    """Plan a grace period from now, or from `due_date`, if that is later; unless one is planned or over.

    After a cancelled one, a new one may start.
    """
    last = _newest_grace(db, invoice)
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
