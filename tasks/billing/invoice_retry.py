"""One retry of ours: whether to try at all, under which idempotency key, and what came of it.

Nobody is charged twice, whatever is lost on the way:
- The invoice is fetched first, and what is settled or under way at the bank is left alone.
- The key is the retry's own, (invoice, number): the same in every attempt, every replay and every job owed for it.
- After a 5xx nobody knows whether there was a charge. To ask again under the same key is safe, and all it takes where
  the call had not begun. Where it had, Stripe gives the key the same answer for at least a day. So after some tries we
  wait longer than that, in which Stripe mends or rolls back what it had begun; then the invoice itself says whether it
  is paid, and only one that is still open is tried under a new key.
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

MAX_TRIES = 5  # of a job, before a 5xx is taken for a saved one
NEW_KEY_DELAY = timedelta(hours=25)
RetryOutcome = tuple[str, str | None, dict[str, Any]]  # the retry's new state, the decline code, the invoice then


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
            if attempt.number < MAX_TRIES:
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
    if payment.under_way:
        return "pending", None, found
    if _would_decline_again(attempt, found, payment):
        return "declined", payment.code, found
    return None


def _pay(attempt: Attempt, invoice: str, key: str) -> RetryOutcome:
    try:
        answer = stripe.pay_invoice(attempt, invoice, key)
    except stripe.Refused as refused:
        found = stripe.fetch_invoice(attempt, invoice)
        if found.get("status") in SETTLED:  # in this very moment
            return _state_of_settled(found), None, found
        return "declined", refused.code, found
    if answer.get("status") == "paid":
        return "paid", None, answer
    code = _payment_of(attempt, answer).code
    return ("declined" if code else "pending"), code, answer  # a bank debit takes days; an event will tell


def _state_of_settled(invoice: dict[str, Any]) -> str:
    """The state of a retry that need not try: nobody can tell whose payment it was, and nobody has to."""
    return "paid" if invoice["status"] == "paid" else "stopped"


def _payment_of(attempt: Attempt, invoice: dict[str, Any]) -> Payment:
    try:
        return stripe.fetch_payment(attempt, invoice)
    except PermanentError:  # a key that may not read payments
        return Payment()


def _would_decline_again(attempt: Attempt, invoice: dict[str, Any], payment: Payment) -> bool:
    """Was it declined for ever, and is it the same card still? Where that cannot be known it is worth a try."""
    if payment.method is None or not (payment.final or payment.code in HARD_DECLINES):
        return False
    try:
        return stripe.fetch_payment_method(attempt, invoice) == payment.method
    except PermanentError:  # a key that may not read customers
        return False


def _postpone_with_new_key(attempt: Attempt, db: Session, key: tuple[str, int], broken: int) -> None:
    """Under a new key, when the old one's answer cannot change any more."""
    retry = select_planned(db, PaymentRetry, key)
    if retry is not None and retry.broken == broken:
        retry.broken, retry.due_at = broken + 1, attempt.now + NEW_KEY_DELAY
    db.commit()


def _retry_in(seconds: float) -> TransientError:
    return TransientError(
        "Stripe answered 5xx to a payment: it is tried again in a day, if it has not come", int(seconds)
    )
