"""The alert mails to the operator. workers/alerts.py decides which alerts are sent, and when."""

from __future__ import annotations

from sqlalchemy.orm import Session

from inbox.alert_rules import AlertDigest
from tasks.handler import Attempt, FollowUp
from tasks.notifications.notify import notify_operator
from tasks.payloads import parse

ALERT_DUE = "alert.due"


def send_alert(attempt: Attempt, db: Session) -> list[FollowUp]:
    """alert.due: one message with all alerts that are new, still firing or resolved."""
    digest = parse(attempt.event.body, AlertDigest)
    return [notify_operator(db, attempt, "alert", subject=digest.subject(), text=digest.text())]
