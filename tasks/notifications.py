"""Messages to customers and to the administrator, through whatever Apprise can reach.

A handler that has something to tell writes a Notification row in its own transaction and returns the job that sends
it; the job's arguments hold the row's id and no address. The words are in templates/<kind>.txt, for people to edit.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import apprise
from apprise.utils.parse import is_email
from sqlalchemy.orm import Session

from inbox.errors import HoldfastError, PermanentError, TransientError
from inbox.job import job_id
from settings import Settings
from tasks.handling import Attempt, FollowUp
from tasks.models import Notification
from tasks.rows import insert_if_new

logging.getLogger("apprise").disabled = True  # it writes recipients into its lines

TEMPLATES = Path(__file__).with_name("templates")
ADDRESS = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")  # Apprise would take a list
PHONE = re.compile(r"\+?[0-9 ().-]{5,30}")
ASSET = apprise.AppriseAsset(async_mode=False)


def notify_customer(
    db: Session, attempt: Attempt, kind: str, email: str | None, phone: str | None = None, **params: str
) -> FollowUp:
    """Owe a customer the message `kind`; where no address is known, owe the administrator word of that instead."""
    email = email if email and _is_address(email) else None
    phone = phone if phone and PHONE.fullmatch(phone) else None
    if not email and not phone:
        return notify_admin(db, attempt, "no_address", message=kind, event=attempt.event.id)
    return _owe(db, attempt, kind, params, {"audience": "customer", "email": email, "phone": phone})


def notify_admin(db: Session, attempt: Attempt, kind: str, **params: str) -> FollowUp:
    """Owe the administrator the message `kind`."""
    return _owe(db, attempt, kind, params, {"audience": "admin"})


def tell_admin_now(db: Session, attempt: Attempt, kind: str, **params: str) -> None:
    """Send at once, for a job that is about to end as a dead letter and so can leave no follow-up.

    Commits. What cannot be sent now stays in the table as owed; the dead letter is there to be seen.
    """
    key = str(notify_admin(db, attempt, kind, **params).args["notification"])
    db.commit()
    notification = db.get_one(Notification, key)
    try:
        _deliver(attempt, db, notification)
        db.commit()
    except HoldfastError:
        db.rollback()


def send(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Send one notification to every service that has not taken it yet.

    Raises TransientError if one does not take it. The receivers can tell a repetition: a mail bears the job's key in
    X-Idempotency-Key. (A worker that dies between a service's yes and the commit sends it twice.)
    """
    notification = db.get(Notification, str(attempt.args["notification"]))
    if notification is None:
        raise PermanentError("there is no such notification")
    _deliver(attempt, db, notification)
    return []


def _is_address(email: str) -> bool:
    """One address, which Apprise would not take for another: it mails o'hara@example.com to hara@example.com."""
    understood = is_email(email) or {}  # type: ignore[no-untyped-call]
    return bool(ADDRESS.fullmatch(email)) and understood.get("full_email") == email


def _owe(db: Session, attempt: Attempt, kind: str, params: dict[str, str], whom: dict[str, str | None]) -> FollowUp:
    effect = f"notify.{kind}"
    key = job_id(attempt.event.source, attempt.event.id, effect)
    stamp: dict[str, Any] = {"state": "owed", "sent_by": [], "created_at": attempt.now}
    insert_if_new(db, Notification, id=key, kind=kind, params=params, **whom, **stamp)
    return FollowUp(effect, "tasks.notifications.send", {"notification": key})


@dataclass(frozen=True, slots=True)
class Service:
    """One Apprise URL, addressed. `digest` stands for it in SQL, because the URL itself holds passwords."""

    digest: str
    url: str

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]


def services(settings: Settings, notification: Notification) -> list[Service]:
    """Where this notification goes. A URL with a placeholder that cannot be filled is left out."""
    customer = notification.audience == "customer"
    known = {"email": notification.email, "phone": notification.phone} if customer else {}
    found = []
    for template in settings.customer_notify_urls if customer else settings.admin_notify_urls:
        url = template
        for name, value in known.items():
            url = url.replace(f"{{{name}}}", quote(value, safe="") if value else f"{{{name}}}")
        if customer and ("{email}" in url or "{phone}" in url):
            continue
        found.append(Service(hashlib.sha256(template.encode()).hexdigest()[:16], _with_key(url, notification.id)))
    return found


def _with_key(url: str, key: str) -> str:
    """A mail carries the idempotency key in a header of its own."""
    if not url.startswith(("mailto://", "mailtos://")):
        return url
    return f"{url}{'&' if '?' in url else '?'}+X-Idempotency-Key={quote(key, safe='')}"


def words(kind: str, params: dict[str, str]) -> tuple[str, str]:
    """(subject, body) from the template of this kind: its first line is the subject, the rest the body.

    Raises PermanentError for a template that somebody has broken.
    """
    subject, _, body = (TEMPLATES / f"{kind}.txt").read_text(encoding="utf-8").partition("\n")
    try:
        return Template(subject.strip()).substitute(params), Template(body.strip()).substitute(params)
    except (KeyError, ValueError):
        raise PermanentError(f"templates/{kind}.txt uses a $name that this message does not have") from None


def _deliver(attempt: Attempt, db: Session, notification: Notification) -> None:
    if notification.state == "sent":
        return
    db.commit()  # no transaction stays open over a call
    chosen = services(attempt.settings, notification)
    subject, body = words(notification.kind, notification.params)
    refused = []
    for service in chosen:
        if service.digest in notification.sent_by:
            continue
        if _post(service.url, subject, body):
            notification.sent_by = [*notification.sent_by, service.digest]
            db.commit()
        else:
            refused.append(service.scheme)
        attempt.renew()
    if refused:
        raise TransientError(f"{len(refused)} of {len(chosen)} services did not take it: {', '.join(refused)}")
    notification.state = "sent" if chosen else "not_configured"
    notification.sent_at = attempt.now if chosen else None


def _post(url: str, subject: str, body: str) -> bool:
    """Hand one message to one service; says whether it took it."""
    service = apprise.Apprise(asset=ASSET)
    if not service.add(url):
        raise PermanentError("CUSTOMER_NOTIFY_URLS or ADMIN_NOTIFY_URLS holds what is no Apprise URL")
    return bool(service.notify(title=subject, body=body, body_format=apprise.NotifyFormat.TEXT))
