"""Refunds: money that goes back, wholly or in part, and refunds that fail. Each may come before the order."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from tasks.billing import charges
from tasks.billing.charges import ChargeObject
from tasks.billing.refetch import observed_at
from tasks.db.locking import advisory_lock, upsert_locked
from tasks.handler import Attempt, FollowUp
from tasks.models import Charge, Notification
from tasks.notifications.money import format_amount
from tasks.notifications.notify import notify_admin
from tasks.orders import access
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, parse, ref, require

NOT_REFUNDED = frozenset({"failed", "canceled"})  # https://docs.stripe.com/api/refunds/object#refund_object-status


class RefundObject(Struct):
    """What we use of https://docs.stripe.com/api/refunds/object."""

    id: Id | None = None
    charge: Ref = None
    amount: Int64 | None = None
    currency: Text | None = None
    status: Text | None = None
    failure_reason: Text | None = None


def charge_refunded(attempt: Attempt, db: Session) -> list[FollowUp]:
    """charge.refunded: the amount is recorded; a full refund takes the access away, a partial one does not.

    Of two events of one second, the greater amount is the newer.
    """
    event = parse(attempt.event.body, StripeEvent[ChargeObject])
    told, created = event.data.object, require(event.created, "created")
    found = charges.fetch_current(attempt, db, told.id)
    charge = found or told
    charge.invoice = charge.invoice or told.invoice  # which only events of old API versions name
    names = charges.resolve_payment_refs(attempt, db, charge)
    return _upsert_charge(attempt, db, charge, created, names, fetched=found is not None)


def refund_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """refund.failed, refund.updated, charge.refund.updated: of a failed refund the administrator is told, once.

    For the customer has no money back, and somebody has to see to that. With an API key the charge of a refund that
    failed or was cancelled is looked at again, and access follows what is still refunded of it.
    https://docs.stripe.com/refunds#failed-refunds
    """
    event = parse(attempt.event.body, StripeEvent[RefundObject])
    refund = event.data.object
    if require(refund.status, "data.object.status") not in NOT_REFUNDED:
        return []
    created = require(event.created, "created")
    charge = charges.fetch_current(attempt, db, ref(refund.charge))
    names = (
        charges.resolve_payment_refs(attempt, db, charge) if charge else {}
    )  # all that commits comes before all that is written
    told = _notify_failed_refund(attempt, db, refund) if refund.status == "failed" else []
    return [*told, *(_upsert_charge(attempt, db, charge, created, names, fetched=True) if charge else [])]


def _upsert_charge(
    attempt: Attempt, db: Session, charge: ChargeObject, created: int, names: charges.PaymentRefs, *, fetched: bool
) -> list[FollowUp]:
    """What is known of a charge into its row, if that is news, and access as it now should be.

    `created` is the event's age. What was fetched replaces all before it: a refund that failed has a smaller amount.
    """
    seen_created = observed_at(attempt, created) if fetched else created
    values = {
        "amount": require(charge.amount, "data.object.amount"),
        "amount_refunded": require(charge.amount_refunded, "data.object.amount_refunded"),
        "refunded": charge.refunded,
        "currency": charge.currency,
        "created": charge.created,
        "seen_created": seen_created,
        "updated_at": attempt.now,
    }
    key = require(charge.id, "data.object.id")
    row, new = upsert_locked(db, Charge, id=key, **values, **names)
    later = (values["seen_created"], values["amount_refunded"]) > (row.seen_created, row.amount_refunded)
    if not new and (seen_created >= row.seen_created if fetched else later):
        charges.merge_known(row, values)
    charges.merge_known(row, names)
    return access.sync_entitlements(db, attempt, **charges.payment_refs(row))


def _notify_failed_refund(attempt: Attempt, db: Session, refund: RefundObject) -> list[FollowUp]:
    """Once per refund: up to three types of event tell of one failure."""
    key = require(refund.id, "data.object.id")
    currency = require(refund.currency, "data.object.currency")
    amount = format_amount(require(refund.amount, "data.object.amount"), currency)
    advisory_lock(db, [f"refund:{key}"])
    if db.scalar(select(exists().where(Notification.kind == "refund_failed", Notification.about == key))):
        return []
    words = {"charge": ref(refund.charge) or "not told", "reason": refund.failure_reason or "not told"}
    return [notify_admin(db, attempt, "refund_failed", about=key, refund=key, amount=amount, **words)]
