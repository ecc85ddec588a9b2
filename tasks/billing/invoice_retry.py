"""One retry of ours: whether to charge, under which idempotency key, and with what outcome.

No customer is charged twice, whatever response is lost:
- The invoice is fetched first. One that is settled, or whose payment is pending at the bank, is left alone.
- The idempotency key belongs to the retry, (invoice, number): it is the same in every attempt, replay and job for it.
- After a 5xx the outcome is unknown. Repeating the request with the same key is safe, and enough if Stripe had not
  started the payment. If it had, Stripe returns the same response for that key for at least 24 hours. So after some
  attempts we wait longer than that, while Stripe completes or rolls back the payment. Then the invoice shows whether it
  is paid, and only an invoice that is still open is charged under a new key.
  https://docs.stripe.com/api/idempotent_requests, https://docs.stripe.com/error-low-level#server-errors
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks.billing.dunning import select_planned
from tasks.billing.subscription_state import HARD_DECLINES, SETTLED
from tasks.clients import stripe
from tasks.clients.stripe import Payment
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt
from tasks.models import PaymentRetry

MAX_ATTEMPTS = 5  # of a job, until a 5xx is assumed to be the stored response of the key
NEW_KEY_DELAY = timedelta(hours=25)
RetryOutcome = tuple[
    str, str | None, dict[str, Any]
]  # (the retry's new state, the decline code, the invoice afterwards)


def retry_payment(attempt: Attempt, db: Session, retry: PaymentRetry) -> RetryOutcome:
    """Charge a planned retry's invoice, if it is still open and the charge may succeed. Commits.

    Raises TransientError for an outcome that is not known yet.
    """
    invoice, number, broken, due_at = retry.invoice, retry.number, retry.broken, retry.due_at
    with outside_transaction(db):
        found = stripe.fetch_invoice(attempt, invoice)
        outcome = _outcome_without_charge(attempt, found)
        if outcome is not None:
            return outcome
        if broken and attempt.now < due_at:
            raise _retry_in((due_at - attempt.now).total_seconds())
        try:
            return _pay(attempt, invoice, f"{invoice}:retry:{number}" + (f":{broken}" if broken else ""))
        except stripe.OutcomeUnknown:
            if attempt.number < MAX_ATTEMPTS:
                raise
    _postpone_with_new_key(attempt, db, (invoice, number), broken)
    raise _retry_in(NEW_KEY_DELAY.total_seconds())


def _outcome_without_charge(attempt: Attempt, found: dict[str, Any]) -> RetryOutcome | None:
    """The outcome for an invoice that is not to be charged; None if it is."""
    if found.get("status") in SETTLED:  # perhaps by an earlier attempt of this retry whose response was lost
        return _state_of_settled(found), None, found
    if found.get("collection_method") == "send_invoice":
        return "stopped", None, found
    payment = _payment_of(attempt, found)
    if payment.in_progress:
        return "pending", None, found
    if _would_decline_again(attempt, found, payment):
        return "declined", payment.code, found
    return None


def _pay(attempt: Attempt, invoice: str, key: str) -> RetryOutcome:
    try:
        answer = stripe.pay_invoice(attempt, invoice, key)
    except stripe.Refused as refused:
        found = stripe.fetch_invoice(attempt, invoice)
        if found.get("status") in SETTLED:  # meanwhile
            return _state_of_settled(found), None, found
        return "declined", refused.code, found
    if answer.get("status") == "paid":
        return "paid", None, answer
    code = _payment_of(attempt, answer).code
    return ("declined" if code else "pending"), code, answer  # a bank debit takes days; an event reports its outcome


def _state_of_settled(invoice: dict[str, Any]) -> str:
    """The retry's state if the invoice is settled. Whether our charge or another payment settled it does not matter."""
    return "paid" if invoice["status"] == "paid" else "stopped"


def _payment_of(attempt: Attempt, invoice: dict[str, Any]) -> Payment:
    try:
        return stripe.fetch_payment(attempt, invoice)
    except PermanentError:  # the key may not read payments
        return Payment()


def _would_decline_again(attempt: Attempt, invoice: dict[str, Any], payment: Payment) -> bool:
    """Whether the last decline was final and the card is still the same. False if that is not known."""
    if payment.method is None or not (payment.final or payment.code in HARD_DECLINES):
        return False
    try:
        return stripe.fetch_payment_method(attempt, invoice) == payment.method
    except PermanentError:  # the key may not read customers
        return False


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
