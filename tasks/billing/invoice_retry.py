"""One retry of ours: whether to charge, under which idempotency key, and with what outcome.

No customer is charged twice, whatever response is lost:
- The invoice is fetched first. One that is settled, or whose payment is pending at the bank, is left alone; so is one
  that Stripe is going to collect itself.
- The idempotency key belongs to the retry, (invoice, number): it is the same in every attempt, replay and job for it.
- After a 5xx the outcome is unknown. Repeating the request with the same key is safe, and enough if Stripe had not
  started the payment. If it had, Stripe returns the same response for that key for at least 24 hours. So after some
  attempts we wait longer than that, while Stripe completes or rolls back the payment. Then the invoice shows whether it
  is paid, and only an invoice that is still open is charged under a new key.
  https://docs.stripe.com/api/idempotent_requests, https://docs.stripe.com/error-low-level#server-errors
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks.billing.collection import BANK_DEBITS, HARD_DECLINES, may_debit_again, will_try
from tasks.billing.dunning import select_planned
from tasks.billing.failures import last_failure_at
from tasks.billing.subscription_state import FINAL, SETTLED
from tasks.clients import stripe, stripe_payments
from tasks.clients.stripe_payments import Payment
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import PaymentRetry

MAX_ATTEMPTS = 5  # of a job, until a 5xx is assumed to be the stored response of the key
NEW_KEY_DELAY = timedelta(hours=25)
SOON_SECONDS = 3600  # an attempt of Stripe's that is due within this time is waited for


class Outcome(NamedTuple):
    """A retry's new state, the decline code, the invoice afterwards, and whether Stripe was asked to charge it."""

    state: str
    code: str | None
    invoice: dict[str, Any]
    charged: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """What is known of a planned retry before its calls: its own row, and the earlier retries of its invoice."""

    invoice: str
    number: int
    broken: int  # how many of its idempotency keys ended in a 5xx
    due_at: datetime
    method: str | None  # the new payment method that it is for
    charges: int  # how often we have charged the invoice before
    last_failure_at: int  # seconds since 1970

    @property
    def key(self) -> str:
        return f"{self.invoice}:retry:{self.number}" + (f":{self.broken}" if self.broken else "")


def retry_payment(attempt: Attempt, db: Session, row: PaymentRetry) -> Outcome:
    """Charge a planned retry's invoice, if it is still open and the charge may succeed. Commits.

    Raises TransientError for an outcome that is not known yet.
    """
    retry = _load(db, row)
    with outside_transaction(db):
        found = stripe.fetch_invoice(attempt, retry.invoice)
        outcome = _outcome_without_charge(attempt, retry, found)
        if outcome is not None:
            return outcome
        if retry.broken and attempt.now < retry.due_at:
            raise _retry_in((retry.due_at - attempt.now).total_seconds())
        try:
            return _pay(attempt, retry.invoice, retry.key)
        except stripe.OutcomeUnknown:
            if attempt.number < MAX_ATTEMPTS:
                raise
    _postpone_with_new_key(attempt, db, (retry.invoice, retry.number), retry.broken)
    raise _retry_in(NEW_KEY_DELAY.total_seconds())


def _load(db: Session, row: PaymentRetry) -> Retry:
    before = db.scalars(select(PaymentRetry).filter_by(invoice=row.invoice, charged=True)).all()
    ended = [int(one.done_at.timestamp()) for one in before if one.done_at]
    return Retry(
        row.invoice,
        row.number,
        row.broken,
        row.due_at,
        row.method,
        charges=len(before),
        last_failure_at=max([last_failure_at(db, row.invoice), *ended]),
    )


def _outcome_without_charge(attempt: Attempt, retry: Retry, found: dict[str, Any]) -> Outcome | None:
    """The outcome for an invoice that is not to be charged; None if it is."""
    if found.get("status") in SETTLED:  # perhaps by an earlier attempt of this retry whose response was lost
        return Outcome(_state_of_settled(found), None, found)
    if found.get("collection_method") == "send_invoice":
        return Outcome("stopped", None, found)
    payment = _payment_of(attempt, found)
    if payment.in_progress:
        return Outcome("pending", None, found)
    if _yields(attempt, retry, found) or not _is_of_use(attempt, retry, found, payment):
        return Outcome("cancelled", None, found)
    if retry.method is None and _would_decline_again(attempt, retry, found, payment):
        return Outcome("declined", payment.code, found)
    return None


def _is_of_use(attempt: Attempt, retry: Retry, found: dict[str, Any], payment: Payment) -> bool:
    """Whether the new payment method that the retry is for would be charged, and is not the one that was declined."""
    if retry.method is None:
        return True
    method, _, renewed = retry.method.partition(" ")
    return (payment.method != method or bool(renewed)) and _would_charge(attempt, found, method, if_unknown=False)


def _yields(attempt: Attempt, retry: Retry, found: dict[str, Any]) -> bool:
    """Whether Stripe is about to collect the invoice itself, or collection is switched off.

    A schedule waits for every attempt that Stripe has planned; a new payment method for one that is due soon.
    """
    next_try, now = found.get("next_payment_attempt"), attempt.now.timestamp()
    is_soon = retry.method is None or (next_try or 0) <= now + SOON_SECONDS
    if found.get("auto_advance") is False or (will_try(next_try, now) and is_soon):
        return True
    key = stripe_payments.subscription_of(found)
    if key is None:
        return False
    try:
        subscription = stripe.fetch_subscription(attempt, key)
    except stripe.Refused:
        return False
    for_update = found.get("billing_reason") == "subscription_update" and subscription.get("pending_update")
    return bool(for_update) or subscription.get("status") in FINAL


def _pay(attempt: Attempt, invoice: str, key: str) -> Outcome:
    try:
        answer = stripe.pay_invoice(attempt, invoice, key)
    except stripe.Refused as refused:
        found = stripe.fetch_invoice(attempt, invoice)
        if found.get("status") in SETTLED:  # meanwhile
            return Outcome(_state_of_settled(found), None, found, charged=True)
        return Outcome("declined", refused.code, found, charged=True)
    if answer.get("status") == "paid":
        return Outcome("paid", None, answer, charged=True)
    code = _payment_of(attempt, answer).code  # a bank debit takes days; an event reports its outcome
    return Outcome("declined" if code else "pending", code, answer, charged=True)


def _state_of_settled(invoice: dict[str, Any]) -> str:
    """The retry's state if the invoice is settled. Whether our charge or another payment settled it does not matter."""
    return "paid" if invoice["status"] == "paid" else "stopped"


def _payment_of(attempt: Attempt, invoice: dict[str, Any]) -> Payment:
    try:
        return stripe_payments.fetch_payment(attempt, invoice)
    except PermanentError:  # the key may not read payments
        return Payment()


def _would_decline_again(attempt: Attempt, retry: Retry, invoice: dict[str, Any], payment: Payment) -> bool:
    """Whether the last decline was final, or too many or too recent, and no other payment method is known of.

    False if the decline is not known.
    """
    since = attempt.now.timestamp() - retry.last_failure_at
    refused = payment.type in BANK_DEBITS and not may_debit_again(retry.charges, since)
    if payment.method is None or not (refused or payment.final or payment.code in HARD_DECLINES):
        return False
    return _would_charge(attempt, invoice, payment.method, if_unknown=True)


def _would_charge(attempt: Attempt, invoice: dict[str, Any], method: str, *, if_unknown: bool) -> bool:
    """Whether a payment of the invoice would charge this method."""
    try:
        return stripe_payments.fetch_payment_method(attempt, invoice) == method
    except PermanentError:  # the key may not read customers
        return if_unknown


def _postpone_with_new_key(attempt: Attempt, db: Session, key: tuple[str, int], broken: int) -> None:
    """Postpone the retry, to a new key: by then the old key's outcome is final."""
    retry = select_planned(db, PaymentRetry, key)
    if retry is not None and retry.broken == broken:
        retry.broken, retry.due_at = broken + 1, attempt.now + NEW_KEY_DELAY
    db.commit()


def _retry_in(seconds: float) -> TransientError:
    return TransientError(
        "Stripe answered 5xx to a payment: it is retried in a day, unless it has succeeded by then", int(seconds)
    )
