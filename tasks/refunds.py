"""What takes a sale back: refunds, disputes, a deleted customer. Each may come before the order that it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from tasks import access
from tasks.clients import stripe
from tasks.handling import Attempt, FollowUp
from tasks.models import Charge, DeletedCustomer, Dispute, Notification, Order
from tasks.money import amount_text
from tasks.notifications import notify_admin
from tasks.payloads import Id, Ref, Seconds, Text, Whole, convert, need, read, ref
from tasks.rows import alone, insert_if_new

NOT_REFUNDED = frozenset({"failed", "canceled"})  # https://docs.stripe.com/api/refunds/object#refund_object-status
OVER = frozenset({"won", "lost", "warning_closed", "prevented"})  # no dispute comes back from these


class ChargeObject(Struct):
    """What we use of Stripe's charge. API versions since 2025-03-31 (`basil`) do not name its `invoice`."""

    id: Id | None = None
    payment_intent: Ref = None
    invoice: Ref = None
    amount: Whole | None = None
    amount_refunded: Whole | None = None
    refunded: bool = False
    currency: Text = ""
    created: Whole = 0


class ChargeData(Struct):
    object: ChargeObject


class ChargeEvent(Struct):
    data: ChargeData
    created: Whole | None = None


class RefundObject(Struct):
    """What we use of https://docs.stripe.com/api/refunds/object."""

    id: Id | None = None
    charge: Ref = None
    amount: Whole | None = None
    currency: Text | None = None
    status: Text | None = None
    failure_reason: Text | None = None


class RefundData(Struct):
    object: RefundObject


class RefundEvent(Struct):
    data: RefundData
    created: Whole | None = None


class EvidenceDetails(Struct):
    due_by: Seconds | None = None


class DisputeObject(Struct):
    """What we use of Stripe's dispute."""

    id: Id | None = None
    charge: Ref = None
    payment_intent: Ref = None
    amount: Whole = 0
    currency: Text = ""
    reason: Text = ""
    status: Text | None = None
    created: Whole | None = None
    evidence_details: EvidenceDetails | None = None


class DisputeData(Struct):
    object: DisputeObject


class DisputeEvent(Struct):
    data: DisputeData
    created: Whole | None = None


class CustomerObject(Struct):
    id: Id | None = None


class CustomerData(Struct):
    object: CustomerObject


class CustomerEvent(Struct):
    data: CustomerData


def charge_refunded(attempt: Attempt, db: Session) -> list[FollowUp]:
    """charge.refunded: the amount is recorded; a full refund takes the access away, a partial one does not.

    Of two events of one second, the greater amount is the newer.
    """
    event = read(attempt.event.body, ChargeEvent)
    return _take_in(attempt, db, event.data.object, need(event.created, "created"))


def refund_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """refund.failed, refund.updated, charge.refund.updated: of a failed refund the administrator is told, once.

    For the customer has no money back, and somebody has to see to that. With an API key the charge of a refund that
    failed or was cancelled is looked at again, and access follows what is still refunded of it.
    https://docs.stripe.com/refunds#failed-refunds
    """
    event = read(attempt.event.body, RefundEvent)
    refund = event.data.object
    if need(refund.status, "data.object.status") not in NOT_REFUNDED:
        return []
    created = need(event.created, "created")  # what is fetched is newer: then a later event has it too
    charge = _look(attempt, db, ref(refund.charge))
    told = _tell_failed(attempt, db, refund) if refund.status == "failed" else []
    return [*told, *(_take_in(attempt, db, charge, created) if charge else [])]


def _take_in(attempt: Attempt, db: Session, charge: ChargeObject, seen_created: int) -> list[FollowUp]:
    """What is known of a charge into its row, if that is news, and access as it now should be."""
    values = {
        "amount": need(charge.amount, "data.object.amount"),
        "amount_refunded": need(charge.amount_refunded, "data.object.amount_refunded"),
        "refunded": charge.refunded,
        "currency": charge.currency,
        "created": charge.created,
        "seen_created": seen_created,
        "updated_at": attempt.now,
    }
    key = need(charge.id, "data.object.id")
    names = _paid_for(attempt, db, ref(charge.payment_intent), ref(charge.invoice))
    if not insert_if_new(db, Charge, id=key, **values, **names):
        row = db.get_one(Charge, key, with_for_update=True, populate_existing=True)
        if (values["seen_created"], values["amount_refunded"]) > (row.seen_created, row.amount_refunded):
            _set(row, values)
        _set(row, _known(names))
    return access.follow(db, attempt, **names)


def dispute_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """charge.dispute.created, updated, closed: access follows; the administrator is told of its start and its end.

    Nobody hears of a start after the end, whatever came first. As with refunds, what is paid for since outweighs it.
    """
    event = read(attempt.event.body, DisputeEvent)
    dispute, created = event.data.object, need(event.created, "created")
    values: dict[str, Any] = {
        "charge": need(ref(dispute.charge), "data.object.charge"),
        "amount": dispute.amount,
        "currency": dispute.currency,
        "reason": dispute.reason,
        "status": need(dispute.status, "data.object.status"),
        "seen_created": created,
        "seen_event": attempt.event.id,
        "updated_at": attempt.now,
    }
    key = need(dispute.id, "data.object.id")
    charge = _look(attempt, db, values["charge"]) or ChargeObject()
    charge_created = charge.created or dispute.created or created
    intent = ref(dispute.payment_intent) or ref(charge.payment_intent)
    names = _paid_for(attempt, db, intent, ref(charge.invoice))
    row, was = _record(db, key, values, names, charge_created)
    told = [_tell(attempt, db, row, dispute)] if was is None or (row.status in OVER and was not in OVER) else []
    return [*told, *access.follow(db, attempt, **names)]


def customer_deleted(attempt: Attempt, db: Session) -> list[FollowUp]:
    """customer.deleted: whatever they bought ends. Stripe has cancelled their subscriptions."""
    key = need(read(attempt.event.body, CustomerEvent).data.object.id, "data.object.id")
    insert_if_new(db, DeletedCustomer, id=key, deleted_at=attempt.now)
    return access.follow(db, attempt, customer=key)


def _record(
    db: Session, key: str, values: dict[str, Any], names: dict[str, str | None], charge_created: int
) -> tuple[Dispute, str | None]:
    """The dispute's row, locked, as the newest event has it, and the status it had; None for a new one."""
    new = insert_if_new(db, Dispute, id=key, charge_created=charge_created, **values, **names)
    row = db.get_one(Dispute, key, with_for_update=True, populate_existing=True)
    row.charge_created = min(row.charge_created, charge_created)  # whoever knows the charge knows the earlier time
    if new:
        return row, None
    was = row.status
    seen = (values["status"] in OVER, values["seen_created"], values["seen_event"])
    if seen > (was in OVER, row.seen_created, row.seen_event):
        _set(row, values)
    _set(row, _known(names))
    return row, was


def _set(row: Charge | Dispute, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(row, name, value)


def _known(names: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in names.items() if value}


def _paid_for(attempt: Attempt, db: Session, payment_intent: str | None, invoice: str | None) -> dict[str, str | None]:
    """What a payment and its order can have in common: with an API key, what the event does not name is asked for.

    An order that was paid at the checkout itself knows the payment intent; only invoices are worth a question.
    """
    known = {"payment_intent": payment_intent, "invoice": invoice, "subscription": None}
    if not attempt.settings.stripe_api_key or not _known(known) or _is_ordered(db, payment_intent):
        return known
    db.commit()  # no transaction stays open over a call
    try:
        found = stripe.find_invoice(attempt, payment_intent, invoice)
    except stripe.Refused:  # not known to this key: then what the event says is all there is
        return known
    return known | {"invoice": found.get("id", invoice), "subscription": stripe.subscription_of(found)}


def _look(attempt: Attempt, db: Session, charge: str | None) -> ChargeObject | None:
    """The charge as it is at Stripe now; None without a key, or where Stripe does not know it."""
    if not charge or not attempt.settings.stripe_api_key:
        return None
    db.commit()  # no transaction stays open over a call
    try:
        return convert(stripe.fetch_charge(attempt, charge), ChargeObject)
    except stripe.Refused:
        return None


def _is_ordered(db: Session, payment_intent: str | None) -> bool:
    return payment_intent is not None and bool(
        db.scalar(select(exists().where(Order.payment_intent == payment_intent)))
    )


def _tell_failed(attempt: Attempt, db: Session, refund: RefundObject) -> list[FollowUp]:
    """Once per refund: up to three types of event tell of one failure."""
    key = need(refund.id, "data.object.id")
    amount = amount_text(need(refund.amount, "data.object.amount"), need(refund.currency, "data.object.currency"))
    alone(db, [f"refund:{key}"])
    if db.scalar(select(exists().where(Notification.kind == "refund_failed", Notification.about == key))):
        return []
    words = {"charge": ref(refund.charge) or "not told", "reason": refund.failure_reason or "not told"}
    return [notify_admin(db, attempt, "refund_failed", about=key, refund=key, amount=amount, **words)]


def _tell(attempt: Attempt, db: Session, row: Dispute, dispute: DisputeObject) -> FollowUp:
    words = {
        "dispute": row.id,
        "charge": row.charge,
        "amount": amount_text(row.amount, row.currency),
        "reason": row.reason,
        "status": row.status,
    }
    if row.status in OVER:
        return notify_admin(db, attempt, "dispute_closed", **words)
    due = dispute.evidence_details.due_by if dispute.evidence_details else None
    return notify_admin(db, attempt, "dispute_opened", due=_day(due) if due else "not known", **words)


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
