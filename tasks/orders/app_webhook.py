"""Signed webhooks to the user's application: orders, and access granted or revoked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from inbox.job import job_id
from tasks.clients.standard_webhook import Gone, Receiver, post
from tasks.db.locking import insert_if_new
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp, GaveUp
from tasks.models import AppMessage, Order
from tasks.notifications.notify import notify_admin
from tasks.routes import DELIVER_APP_WEBHOOK


def enqueue(db: Session, attempt: Attempt, kind: str, order: Order, data: Mapping[str, Any]) -> list[FollowUp]:
    """Store a webhook about an order and return its job; nothing if APP_WEBHOOK_URL is not set."""
    if not attempt.settings.app_webhook_url:
        return []
    effect = f"{kind}.{order.session_id}"
    key = job_id(attempt.event.source, attempt.event.id, effect)
    insert_if_new(db, AppMessage, id=key, type=kind, data={**_order_ids(order), **data}, created_at=attempt.now)
    return [FollowUp(effect, DELIVER_APP_WEBHOOK, {"message": key}, ordering_key=order.session_id)]


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
    notification = notify_admin(db, attempt, "app_not_told", about=message.type, type=message.type, answer=str(error))
    db.commit()
    return GaveUp(str(error), [notification])


def _order_ids(order: Order) -> dict[str, Any]:
    return {
        "session": order.session_id,
        "customer": order.customer,
        "client_reference": order.client_reference,
        "subscription": order.subscription,
    }
