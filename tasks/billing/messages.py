"""Messages about payments, decided when they are sent: whether each is still true, and what it says.

The facts are the stored rows. With an API key the invoice and its subscription are fetched, and Stripe's current state
replaces them; nothing of that is stored, because the customer's own events do that.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.billing import announcements, debts, dunning, invoices, subscriptions
from tasks.billing.subscription_state import FINAL, IN_ORDER, OWN_REASONS, SUSPENDED
from tasks.clients import stripe_payments
from tasks.connected_accounts import account_of
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import Invoice, Notification, PaymentFailure, PaymentGrace, PaymentRetry, Subscription
from tasks.notifications.kinds import Message
from tasks.notifications.localize import Amounts, Day, Money, Value
from tasks.notifications.recipients import Recipient, valid_email, valid_phone
from tasks.orders.stored_ownership import is_invoice_ours, is_subscription_ours


@dataclass(frozen=True, slots=True)
class Debt:
    """An invoice as it is now, and its subscription's status at Stripe (`stripe_status`) and here (`status`)."""

    invoice: Invoice
    stripe_status: str | None
    status: str | None
    fetched: bool = False  # stripe_status is Stripe's current word
    last4: str | None = None  # of the card that was declined

    @property
    def is_in_order(self) -> bool:
        """Whether its subscription is; an invoice without one is as soon as it is paid."""
        status = self.stripe_status if self.fetched else self.status
        return self.invoice.subscription is None or status in IN_ORDER

    @property
    def is_owed(self) -> bool:
        """Whether the customer is asked to pay it: not after the end of a subscription, and not during a sign-up."""
        if self.invoice.state != "open" or self.stripe_status in FINAL:
            return False
        return not dunning.is_sign_up_invoice(self.invoice, self.stripe_status)

    @property
    def customer(self) -> Recipient:
        return Recipient(valid_email(self.invoice.email), valid_phone(self.invoice.phone))


def payment_failed(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the invoice is owed, and no later failure of it has a message of its own."""
    debt = load_debt(attempt, db, notification.about)
    if debt is None or not debt.is_owed:
        return None
    if "grace" in notification.params:
        return _last_failure(attempt, db, debt)
    number = notification.params.get("number")  # not in rows of earlier versions
    if _is_superseded(db, debt.invoice, number):
        return None
    confirm = PaymentFailure.kind == "payment_action_required", PaymentFailure.attempt_count == number
    is_to_confirm = _exists(db, PaymentFailure.invoice == debt.invoice.id, *confirm)
    template = "payment_action_required" if is_to_confirm else notification.kind
    return Message(_debt_values(attempt, db, debt), template, debt.customer)


def _last_failure(attempt: Attempt, db: Session, debt: Debt) -> Message | None:
    """While the grace period that has begun still runs."""
    if _planned_grace(db, debt.invoice) is None or _is_told_of_pause(db, debt.invoice):
        return None
    template = "invoice_overdue" if debt.invoice.sent else "payment_failed_last"
    return Message(_debt_values(attempt, db, debt), template, debt.customer)


def _is_told_of_pause(db: Session, invoice: Invoice) -> bool:
    """Whether another message already reports that Stripe has paused the subscription because of this invoice."""
    row = db.get(Subscription, invoice.subscription) if invoice.subscription else None
    return row is not None and announcements.is_paused_for_payment(row)


def subscription_suspended(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """While the subscription is suspended, or paused by Stripe, and the invoice unpaid."""
    debt = load_debt(attempt, db, notification.about)
    if debt is None:
        return Message({}) if _owes_unknown(db, notification.about) else None
    outdated = debt.fetched and debt.stripe_status in IN_ORDER
    over = debt.stripe_status in FINAL or debt.invoice.state in FINAL
    if debt.status not in (SUSPENDED, "paused") or outdated or over:
        return None
    return Message(_debt_values(attempt, db, debt), to=debt.customer)


def subscription_ended(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """Once a subscription was cancelled because its invoice was not paid, which Stripe never takes back."""
    unpaid = select(Invoice).where(Invoice.subscription == notification.about, dunning.FAILING)
    invoice = db.scalars(unpaid.order_by(Invoice.created.desc()).limit(1)).first()
    row = db.get_one(Subscription, notification.about)
    if not is_subscription_ours(attempt.settings, row):
        return None
    if invoice is None:
        return Message({})
    debt = Debt(invoice, "canceled", "canceled")
    return Message(_invoice_values(invoice, invoice.amount_remaining), to=debt.customer)


def payment_recovered(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """Once the invoice is paid. What it says depends on what follows from that."""
    debt = load_debt(attempt, db, notification.about)
    if debt is None or debt.invoice.state != "paid":
        return None
    values = _invoice_values(debt.invoice, debt.invoice.amount_due)
    if debt.stripe_status in FINAL:
        return Message(values | {"link": None}, "payment_received_ended", debt.customer)
    if others := _other_debts(attempt, db, debt.invoice):
        named = [(one.number or one.id, Money(one.amount_remaining, one.currency)) for one in others]
        about: dict[str, Value] = {"open_invoices": Amounts(tuple(named)), "link": others[0].hosted_invoice_url}
        return Message(values | about, "payment_received_owing", debt.customer)
    template = "payment_recovered" if debt.is_in_order else "payment_received"
    return Message(values | {"link": None}, template, debt.customer)


def payment_given_up(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """To the administrator, while the invoice is unpaid."""
    debt = load_debt(attempt, db, notification.about)
    if debt is None:
        row = _owes_unknown(db, notification.about)
        about = {"invoice": notification.about, "amount": "an unknown amount"}
        return Message(about | {"customer": row.customer, "subscription": row.id}) if row else None
    if debt.invoice.state in FINAL:
        return None
    return Message(_admin_values(debt.invoice, debt.invoice.amount_remaining))


def paid_after_end(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """To the administrator: an invoice of a subscription was paid after the subscription had ended."""
    debt = load_debt(attempt, db, notification.about)
    return Message(_admin_values(debt.invoice, debt.invoice.amount_due)) if debt else None


def _owes_unknown(db: Session, invoice: str) -> Subscription | None:
    """The suspended subscription whose unpaid invoice is not known, because no event named it."""
    row = debts.subscription_of_unknown(db, invoice)
    return row if row is not None and row.status == SUSPENDED else None


def load_debt(attempt: Attempt, db: Session, key: str) -> Debt | None:
    """An invoice as Stripe has it now, or else as it is stored; None if neither knows it."""
    invoice, last4 = db.get(Invoice, key), None
    snapshot = invoices.fetch(attempt, db, key)
    if snapshot is not None:
        last4 = _fetch_last4(attempt, db, snapshot.fetched or {})
        invoice = Invoice(account=account_of(attempt), **invoices.row_values(snapshot))
    row = db.get(Subscription, invoice.subscription) if invoice and invoice.subscription else None
    if invoice is None or not is_invoice_ours(attempt.settings, invoice, row):
        return None
    current = subscriptions.fetch_current(attempt, db, invoice.subscription, 0)
    stripe_status = current.version.state if current and current.version else row.stripe_status if row else None
    return Debt(invoice, stripe_status, row.status if row else None, fetched=current is not None, last4=last4)


def _fetch_last4(attempt: Attempt, db: Session, invoice: dict[str, Any]) -> str | None:
    """The last digits of the card or account that was declined; None if it is paid, or if they are not known."""
    if invoice.get("status") == "paid":
        return None
    try:
        with outside_transaction(db):
            return stripe_payments.fetch_payment(attempt, invoice).last4
    except PermanentError:  # a key that may not read payments
        return None


def _is_superseded(db: Session, invoice: Invoice, number: int | None) -> bool:
    """Whether a later failure, or the last one, has a message of its own."""
    messages = select(Notification).filter_by(about=invoice.id, kind="payment_failed")
    if any("grace" in row.params for row in db.scalars(messages.where(Notification.state.in_(("owed", "sent"))))):
        return True
    of_invoice = PaymentFailure.invoice == invoice.id
    return number is not None and _exists(db, of_invoice, PaymentFailure.attempt_count > number)


def _debt_values(attempt: Attempt, db: Session, debt: Debt) -> dict[str, Value]:
    invoice, grace = debt.invoice, _planned_grace(db, debt.invoice)
    next_try = _next_try(db, invoice)
    is_running = invoice.subscription is not None and debt.stripe_status != "paused"
    ends = grace is not None and is_running and invoice.billing_reason in OWN_REASONS
    return {
        **_invoice_values(invoice, invoice.amount_remaining),
        "last4": debt.last4,
        "next_try": Day(next_try) if next_try and next_try > attempt.now.timestamp() else None,
        "last_day": _day(grace.due_at) if grace and ends else None,
    }


def _invoice_values(invoice: Invoice, minor: int) -> dict[str, Value]:
    return {
        "invoice": invoice.number or invoice.id,
        "amount": Money(minor, invoice.currency),
        "link": invoice.hosted_invoice_url,
    }


def _admin_values(invoice: Invoice, minor: int) -> dict[str, Value]:
    about = {"customer": invoice.customer, "subscription": invoice.subscription or "none"}
    return {"invoice": invoice.id, "amount": Money(minor, invoice.currency), **about}


def _next_try(db: Session, invoice: Invoice) -> int | None:
    """When the invoice is tried again, by our schedule or by Stripe's; seconds since 1970."""
    planned = select(PaymentRetry.due_at).filter_by(invoice=invoice.id, state="planned")
    due_at = db.scalars(planned.limit(1)).first()
    return int(due_at.timestamp()) if due_at else invoice.next_try


def _planned_grace(db: Session, invoice: Invoice) -> PaymentGrace | None:
    return db.scalars(select(PaymentGrace).filter_by(invoice=invoice.id, state="planned").limit(1)).first()


def _other_debts(attempt: Attempt, db: Session, paid: Invoice) -> list[Invoice]:
    """What else the customer has failed to pay and still owes, the oldest first."""
    of_customer = Invoice.customer == paid.customer, Invoice.account == paid.account, Invoice.id != paid.id
    statement = select(Invoice).where(*of_customer, Invoice.state == "open", dunning.FAILING)
    rows = db.scalars(statement.order_by(Invoice.created, Invoice.id)).all()
    debts_now = [load_debt(attempt, db, one.id) for one in rows]
    return [debt.invoice for debt in debts_now if debt is not None and debt.is_owed]


def _day(at: datetime) -> Day:
    return Day(int(at.timestamp()))


def _exists(db: Session, *conditions: Any) -> bool:
    return bool(db.scalar(select(exists().where(*conditions))))
