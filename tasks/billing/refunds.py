"""Refunds, full and partial, and failed refunds. One may arrive before the order that it concerns."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from tasks.billing import charges
from tasks.billing.charges import ChargeObject
from tasks.billing.refetch import observed_at
from tasks.connected_accounts import account_of
from tasks.db.locking import advisory_lock, upsert_locked
from tasks.handler import Attempt, FollowUp
from tasks.models import Charge, Notification
from tasks.money import format_amount
from tasks.notifications.notify import notify_admin
from tasks.orders import access
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, parse, ref, require

NOT_REFUNDED = frozenset({"failed", "canceled"})  # https://docs.stripe.com/api/refunds/object#refund_object-status


class RefundObject(Struct):
    """The fields that we use of https://docs.stripe.com/api/refunds/object."""

    id: Id | None = None
    charge: Ref = None
    amount: Int64 | None = None
    currency: Text | None = None
    status: Text | None = None
    failure_reason: Text | None = None


def charge_refunded(attempt: Attempt, db: Session) -> list[FollowUp]:
    """charge.refunded: record the amount. What ACCESS_AFTER_REFUND says happens once all that was paid is refunded.

    Of two events created in the same second, the one with the greater amount is the newer.
    """
    event = parse(attempt.event.body, StripeEvent[ChargeObject])
    from_event, created = event.data.object, require(event.created, "created")
    found = charges.fetch_current(attempt, db, from_event.id)
    charge = found or from_event
    charge.invoice = charge.invoice or from_event.invoice  # only in events of old API versions
    refs = charges.resolve_payment_refs(attempt, db, charge)
    return _upsert_charge(attempt, db, charge, created, refs, fetched=found is not None)


def refund_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """refund.failed, refund.updated, charge.refund.updated: notify the administrator of a failed refund, once.

    The customer has not been repaid, which a person must resolve. With an API key, the charge of a failed or canceled
    refund is fetched, and access is synced with what is still refunded.
    https://docs.stripe.com/refunds#failed-refunds
    """
    event = parse(attempt.event.body, StripeEvent[RefundObject])
    refund = event.data.object
    if require(refund.status, "data.object.status") not in NOT_REFUNDED:
        return []
    created = require(event.created, "created")
    charge = charges.fetch_current(attempt, db, ref(refund.charge))
    # This may commit, so it comes before the first write.
    refs = charges.resolve_payment_refs(attempt, db, charge) if charge else {}
    notifications = _notify_failed_refund(attempt, db, refund) if refund.status == "failed" else []
    return [*notifications, *(_upsert_charge(attempt, db, charge, created, refs, fetched=True) if charge else [])]


def _upsert_charge(
    attempt: Attempt, db: Session, charge: ChargeObject, created: int, refs: charges.PaymentRefs, *, fetched: bool
) -> list[FollowUp]:
    """Store a charge if it is newer than the row, and sync access.

    `created`: when the event was created. A fetched charge replaces all earlier versions, even with a smaller amount: a
    refund may have failed.
    """
    seen_created = observed_at(attempt, created) if fetched else created
    values = {
        "account": account_of(attempt),
        "amount": require(charge.amount, "data.object.amount"),
        "amount_refunded": require(charge.given_back, "data.object.amount_refunded"),
        "refunded": charge.refunded,
        "currency": charge.currency,
        "created": charge.created,
        "seen_created": seen_created,
        "updated_at": attempt.now,
    }
    key = require(charge.id, "data.object.id")
    row, new = upsert_locked(db, Charge, id=key, **values, **refs)
    later = (values["seen_created"], values["amount_refunded"]) > (row.seen_created, row.amount_refunded)
    if not new and (seen_created >= row.seen_created if fetched else later):
        charges.merge_known(row, values)
    charges.merge_known(row, refs)
    return access.sync_entitlements(db, attempt, **charges.payment_refs(db, row))


def _notify_failed_refund(attempt: Attempt, db: Session, refund: RefundObject) -> list[FollowUp]:
    """Once per refund: up to three types of event report the same failure."""
    key = require(refund.id, "data.object.id")
    currency = require(refund.currency, "data.object.currency")
    amount = format_amount(require(refund.amount, "data.object.amount"), currency)
    advisory_lock(db, [f"refund:{key}"])
    if db.scalar(select(exists().where(Notification.kind == "refund_failed", Notification.about == key))):
        return []
    params = {"charge": ref(refund.charge) or "not given", "reason": refund.failure_reason or "not given"}
    return [notify_admin(db, attempt, "refund_failed", about=key, refund=key, amount=amount, **params)]
