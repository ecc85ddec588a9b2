"""Disputes: a customer's bank asks for a payment back. Each may come before the order that it is about."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from sqlalchemy.orm import Session

from tasks.billing import charges, refetch
from tasks.billing.charges import ChargeObject
from tasks.clients import stripe
from tasks.db.locking import upsert_locked
from tasks.handler import Attempt, FollowUp
from tasks.models import Dispute
from tasks.notifications.localize import iso_date
from tasks.notifications.money import format_amount
from tasks.notifications.notify import notify_admin
from tasks.orders import access
from tasks.payloads import Id, Int64, Ref, StripeEvent, Text, UnixTime, parse, ref, require

# From these no dispute comes back, but for a lost one by an appeal: for us it stays lost until the appeal is won.
# https://docs.stripe.com/api/disputes/object#dispute_object-status
CLOSED = frozenset({"won", "lost", "warning_closed", "prevented"})


class EvidenceDetails(Struct):
    due_by: UnixTime | None = None


class DisputeObject(Struct):
    """What we use of Stripe's dispute."""

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
    """charge.dispute.created, updated, closed: access follows; the administrator is told of its start and its end.

    Nobody hears of a start after the end, whatever came first. As with refunds, what is paid for since outweighs it.
    """
    event = parse(attempt.event.body, StripeEvent[DisputeObject])
    key, created = require(event.data.object.id, "data.object.id"), require(event.created, "created")
    found = refetch.fetch_current(attempt, db, stripe.fetch_dispute, key, DisputeObject)
    dispute = found or event.data.object
    values: dict[str, Any] = {
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
    names = charges.resolve_payment_refs(attempt, db, charge)
    row, was = _upsert(db, key, values, names, charge_created, fetched=found is not None)
    told = (
        [_notify_admin(attempt, db, row, dispute)]
        if was is None or (row.status in CLOSED and was not in CLOSED)
        else []
    )
    return [*told, *access.sync_entitlements(db, attempt, **charges.payment_refs(row))]


def _upsert(
    db: Session, key: str, values: dict[str, Any], names: charges.PaymentRefs, charge_created: int, *, fetched: bool
) -> tuple[Dispute, str | None]:
    """The dispute's row, locked, as the newest event has it, and the status it had; None for a new one."""
    row, new = upsert_locked(db, Dispute, id=key, charge_created=charge_created, **values, **names)
    row.charge_created = min(row.charge_created, charge_created)  # whoever knows the charge knows the earlier time
    if new:
        return row, None
    was = row.status
    seen, last = (values["status"] in CLOSED, values["seen_created"]), (was in CLOSED, row.seen_created)
    if seen > last or (seen == last and (fetched or values["seen_event"] > row.seen_event)):
        charges.merge_known(row, values)
    charges.merge_known(row, names)
    return row, was


def _notify_admin(attempt: Attempt, db: Session, row: Dispute, dispute: DisputeObject) -> FollowUp:
    words = {
        "dispute": row.id,
        "charge": row.charge,
        "amount": format_amount(row.amount, row.currency),
        "reason": row.reason,
        "status": row.status,
    }
    if row.status in CLOSED:
        return notify_admin(db, attempt, "dispute_closed", **words)
    due = dispute.evidence_details.due_by if dispute.evidence_details else None
    return notify_admin(db, attempt, "dispute_opened", due=iso_date(due) if due else "not known", **words)
