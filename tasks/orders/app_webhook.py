"""Signed webhooks to the user's application: orders, access and renewals. The contract is docs/application-webhook.md.

Every message holds all that its customer has at that time, and the customer's next sequence number: of two messages,
the one with the higher number is current.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from inbox.job import job_id
from tasks.clients.standard_webhook import Gone, Receiver, post
from tasks.db.locking import insert_if_new
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, GaveUp
from tasks.models import AppMessage, Customer
from tasks.notifications.notify import notify_admin
from tasks.orders.current_access import TIMES, describe_customer, entitlements_in_force, iso_time, serialize_access
from tasks.orders.what_was_paid import PaidInvoice
from tasks.routes import DELIVER_APP_WEBHOOK

VERSION = 1


def enqueue(
    db: Session, attempt: Attempt, holder: Customer, messages: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[FollowUp]:
    """Store webhooks (type and data) about a locked holder, in their order; returns their jobs.

    Without APP_WEBHOOK_URL only the sequence is counted.
    """
    first = holder.sequence + 1
    holder.sequence += len(messages)
    if not attempt.settings.app_webhook_url:
        return []
    customer, access = describe_customer(db, holder), serialize_access(entitlements_in_force(db, holder.id))
    about = {"version": VERSION, "account": holder.account or None, "livemode": holder.livemode}
    jobs = []
    for sequence, (kind, changed) in enumerate(messages, first):
        effect = f"{kind}.{holder.id}.{sequence}"
        key = job_id(attempt.event.source, attempt.event.id, effect)
        data = {**about, "sequence": sequence, "customer": customer, "access": access, **changed}
        insert_if_new(db, AppMessage, id=key, type=kind, customer=holder.id, data=data, created_at=attempt.now)
        jobs.append(FollowUp(effect, DELIVER_APP_WEBHOOK, {"message": key}, ordering_key=holder.id))
    return jobs


def renewal(subscription: str, invoice: PaidInvoice) -> dict[str, Any]:
    """The data of subscription.renewed, beside what every message has."""
    return {
        "subscription": {
            "id": subscription,
            "invoice": invoice.id,
            "amount": invoice.amount,
            "currency": invoice.currency,
            "period_end": iso_time(invoice.period_end),
        }
    }


def update(subscription: str, new: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The data of subscription.updated, beside what every message has: what changed, of which entitlements."""
    changed = {name: iso_time(value) if name in TIMES else value for name, value in new.items()}
    return {"entitlements": names, "subscription": {"id": subscription, **changed}}


def deliver(attempt: Attempt, db: Session) -> list[FollowUp]:
    """POST one message to APP_WEBHOOK_URL. Retried, with the same webhook-id, until the response is 2xx or 410."""
    settings = attempt.settings
    if not settings.app_webhook_url:
        raise PermanentError("APP_WEBHOOK_URL is not set")
    message = db.get(AppMessage, str(attempt.args["message"]))
    if message is None:
        raise PermanentError("the message does not exist")
    body = json.dumps({"type": message.type, "timestamp": message.created_at.isoformat(), "data": message.data})
    receiver = Receiver("the application", settings.app_webhook_url, settings.app_webhook_secret, trusted=True)
    try:
        with outside_transaction(db):
            post(attempt, receiver, body)
    except (TransientError, PermanentError) as error:
        raise _give_up(db, attempt, message, error) if attempt.last or isinstance(error, Gone) else error from None
    return []


def _give_up(db: Session, attempt: Attempt, message: AppMessage, error: Exception) -> GaveUp:
    notification = notify_admin(db, attempt, "app_not_told", about=message.id, type=message.type, answer=str(error))
    db.commit()
    return GaveUp(str(error), [notification])
