"""Disputes of payments. One may arrive before the order that it concerns."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.billing import charges, refetch
from tasks.billing.charges import ChargeObject
from tasks.clients import stripe
from tasks.connected_accounts import account_of
from tasks.db.locking import upsert_locked
from tasks.handler import Attempt, FollowUp
from tasks.models import Dispute, Notification
from tasks.money import format_amount
from tasks.notifications.kinds import Message
from tasks.notifications.localize import iso_date
from tasks.notifications.notify import notify_admin
from tasks.orders import access
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, parse, ref, require

# Final statuses, except that a lost dispute can be appealed: it then counts as lost until the appeal is won.
# https://docs.stripe.com/api/disputes/object#dispute_object-status
CLOSED = frozenset({"won", "lost", "warning_closed", "prevented"})


class EvidenceDetails(Struct):
    due_by: UnixTime | None = None


class DisputeObject(Struct):
    """The fields that we use of https://docs.stripe.com/api/disputes/object."""

    id: Id | None = None
    charge: Ref = None
    payment_intent: Ref = None
    amount: Int64 = 0
    currency: Text = ""
    reason: Text = ""
    status: Text | None = None
    created: Int64 | None = None
    evidence_details: EvidenceDetails | None = None


def dispute_changed(attempt: Attempt, db: Session) -> list[FollowUp]:
    """charge.dispute.created, updated, closed: sync access; notify the administrator when it is opened and closed.

    If the closing event arrives first, the opening is not announced. As with refunds, only a dispute of all that was
    paid counts, and a later paid renewal restores access.
    """
    event = parse(attempt.event.body, StripeEvent[DisputeObject])
    key, created = require(event.data.object.id, "data.object.id"), require(event.created, "created")
    found = refetch.fetch_current(attempt, db, stripe.fetch_dispute, key, DisputeObject)
    dispute = found or event.data.object
    values: dict[str, Any] = {
        "account": account_of(attempt),
        "charge": require(ref(dispute.charge), "data.object.charge"),
        "amount": dispute.amount,
        "currency": dispute.currency,
        "reason": dispute.reason,
        "status": require(dispute.status, "data.object.status"),
        "seen_created": refetch.observed_at(attempt, created) if found else created,
        "seen_event": attempt.event.id,
        "updated_at": attempt.now,
    }
    charge = charges.fetch_current(attempt, db, values["charge"]) or ChargeObject()
    charge_created = charge.created or dispute.created or created
    charge.payment_intent = dispute.payment_intent or charge.payment_intent
    refs = charges.resolve_payment_refs(attempt, db, charge)
    row, old_status = _upsert(db, key, values, refs, charge_created, fetched=found is not None)
    is_news = old_status is None or (row.status in CLOSED and row.status != old_status)
    notifications = [_notify_admin(attempt, db, row, dispute, old_status)] if is_news else []
    return [*notifications, *access.sync_entitlements(db, attempt, **charges.payment_refs(db, row))]


def still_open(attempt: Attempt, db: Session, notification: Notification) -> Message | None:
    """The message that a dispute was opened, while it is open."""
    row = db.get(Dispute, notification.about)
    if row is not None and row.status in CLOSED:
        return None
    return Message(notification.params)


def _upsert(
    db: Session, key: str, values: dict[str, Any], refs: charges.PaymentRefs, charge_created: int, *, fetched: bool
) -> tuple[Dispute, str | None]:
    """The dispute's row, locked and updated if the values are newer; and its former status, None if it is new."""
    row, new = upsert_locked(db, Dispute, id=key, charge_created=charge_created, **values, **refs)
    row.charge_created = min(row.charge_created, charge_created)  # the charge's own time, if known, is the earlier one
    if new:
        return row, None
    old_status = row.status
    new_version, version = (
        (values["status"] in CLOSED, values["seen_created"]),
        (old_status in CLOSED, row.seen_created),
    )
    if new_version > version or (new_version == version and (fetched or values["seen_event"] > row.seen_event)):
        charges.merge_known(row, values)
    charges.merge_known(row, refs)
    return row, old_status


def _notify_admin(
    attempt: Attempt, db: Session, row: Dispute, dispute: DisputeObject, old_status: str | None
) -> FollowUp:
    """Once when it is opened, once when it is closed, and once more if an appeal against the loss is won."""
    params = {
        "dispute": row.id,
        "charge": row.charge,
        "amount": format_amount(row.amount, row.currency),
        "reason": row.reason,
        "status": row.status,
    }
    if row.status in CLOSED:
        again = row.status if old_status in CLOSED else ""
        return notify_admin(db, attempt, "dispute_closed", about=row.id, count=again, **params)
    due = dispute.evidence_details.due_by if dispute.evidence_details else None
    due_by = iso_date(due) if due else "not known"
    return notify_admin(db, attempt, "dispute_opened", about=row.id, due=due_by, **params)
