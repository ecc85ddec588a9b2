"""Failed payouts: the bank account must be checked by a person."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.handler import Attempt, FollowUp
from tasks.money import format_amount
from tasks.notifications.notify import notify_admin
from tasks.payloads import Id, Int64, StripeEvent, Text, parse, require


class Payout(Struct):
    """The fields that we use of https://docs.stripe.com/api/payouts/object."""

    id: Id | None = None
    amount: Int64 | None = None
    currency: Text | None = None
    failure_code: Text | None = None


def payout_failed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """payout.failed: notify the administrator once per payout."""
    event = parse(attempt.event.body, StripeEvent[Payout])
    payout = event.data.object
    currency = require(payout.currency, "data.object.currency")
    amount = format_amount(require(payout.amount, "data.object.amount"), currency)
    key = require(payout.id, "data.object.id")
    params = {"payout": key, "account": event.account or "our own", "reason": payout.failure_code or "not given"}
    return [notify_admin(db, attempt, "payout_failed", about=key, amount=amount, **params)]
