"""Alerts: what is wrong, told to whoever runs this. workers/alerts.py decides what and when."""

from __future__ import annotations

from sqlalchemy.orm import Session

from inbox.alert_rules import AlertDigest
from tasks.handler import Attempt, FollowUp
from tasks.notifications.notify import notify_operator
from tasks.payloads import parse

DUE = "alert.due"


def send_alert(attempt: Attempt, db: Session) -> list[FollowUp]:
    """alert.due: one message with all that has begun, lasts or is over."""
    told = parse(attempt.event.body, AlertDigest)
    return [notify_operator(db, attempt, "alert", subject=told.subject(), text=told.text())]
