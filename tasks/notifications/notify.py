"""Messages to customers and to the administrator, through whatever Apprise can reach.

A handler that has something to tell writes a Notification row in its own transaction and returns the job that sends
it; the job's arguments hold the row's id and no address. The words are in templates/<locale>/<kind>.txt, else
templates/<kind>.txt, for people to edit: in a folder of their own (TEMPLATES), or here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from apprise.utils.parse import is_email
from msgspec import Struct, field
from sqlalchemy.orm import Session

from inbox.errors import HoldfastError, PermanentError, TransientError
from inbox.job import job_id
from settings import Settings
from tasks.clients import stripe
from tasks.db.locking import insert_if_new
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.models import Notification
from tasks.notifications.apprise_client import render_message, send_message, with_idempotency_key
from tasks.payloads import Text, convert
from tasks.routes import SEND_NOTIFICATION

ADDRESS = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")  # Apprise would take a list
PHONE = re.compile(r"\+?[0-9 ().-]{5,30}")


class Customer(Struct):
    """What we use of Stripe's customer. A deleted one has none of it."""

    email: Text | None = None
    phone: Text | None = None
    preferred_locales: list[Text] | None = field(default_factory=list)


def notify_customer(
    db: Session,
    attempt: Attempt,
    kind: str,
    email: str | None,
    *,
    phone: str | None = None,
    customer: str | None = None,
    locale: str | None = None,
    about: str = "",
    **params: str,
) -> FollowUp:
    """Owe a customer the message `kind`; where no address can be known, owe the administrator word of that instead.

    `customer` is Stripe's id: with an API key the customer's language, and a missing address, are looked up before the
    message is sent; `locale` stands where Stripe knows no language. `about` is the id of what it tells of.
    """
    email, phone = _reachable(email, phone)
    if not email and not phone and not (customer and attempt.settings.stripe_api_key):
        return notify_admin(db, attempt, "no_address", message=kind, event=attempt.event.id)
    whom = {"audience": "customer", "email": email, "phone": phone, "customer": customer, "about": about}
    return _enqueue(db, attempt, kind, params, whom | {"locale": locale})


def notify_admin(db: Session, attempt: Attempt, kind: str, *, about: str = "", **params: str) -> FollowUp:
    """Owe the administrator the message `kind`."""
    return _enqueue(db, attempt, kind, params, {"audience": "admin", "about": about})


def notify_operator(db: Session, attempt: Attempt, kind: str, **params: str) -> FollowUp:
    """Owe the message `kind` to whoever runs this (ALERT_NOTIFY_URLS)."""
    return _enqueue(db, attempt, kind, params, {"audience": "operator", "about": ""})


def notify_admin_now(db: Session, attempt: Attempt, kind: str, **params: str) -> None:
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
    _look_up(attempt, db, notification)
    if notification.audience == "customer" and not notification.email and not notification.phone:
        notification.state = "no_address"
        return [notify_admin(db, attempt, "no_address", message=notification.kind, event=attempt.event.id)]
    _deliver(attempt, db, notification)
    return []


def _look_up(attempt: Attempt, db: Session, notification: Notification) -> None:
    """The customer's language, and an address where the event had none, as Stripe knows them now."""
    if notification.state != "owed" or not notification.customer or not attempt.settings.stripe_api_key:
        return
    try:
        with outside_transaction(db):
            found = convert(stripe.fetch_customer(attempt, notification.customer), Customer)
    except PermanentError:  # deleted, or a key that may not read customers: then we know what the event told
        return
    notification.locale = found.preferred_locales[0] if found.preferred_locales else notification.locale
    if not notification.email and not notification.phone:
        notification.email, notification.phone = _reachable(found.email, found.phone)


def _reachable(email: str | None, phone: str | None) -> tuple[str | None, str | None]:
    """What of an address and a number can be used."""
    return (
        email if email and _is_address(email) else None,
        phone if phone and PHONE.fullmatch(phone) else None,
    )


def _is_address(email: str) -> bool:
    """One address, which Apprise would not take for another: it mails o'hara@example.com to hara@example.com."""
    understood = is_email(email) or {}  # type: ignore[no-untyped-call]
    return bool(ADDRESS.fullmatch(email)) and understood.get("full_email") == email


def _enqueue(db: Session, attempt: Attempt, kind: str, params: dict[str, str], whom: dict[str, str | None]) -> FollowUp:
    effect = f"notify.{kind}"
    if attempt.args and whom["about"]:  # several delayed jobs of one event may each tell of something else
        effect += f".{whom['about']}"
    key = job_id(attempt.event.source, attempt.event.id, effect)
    stamp: dict[str, Any] = {"state": "owed", "sent_by": [], "created_at": attempt.now}
    insert_if_new(db, Notification, id=key, kind=kind, params=params, **whom, **stamp)
    return FollowUp(effect, SEND_NOTIFICATION, {"notification": key})


@dataclass(frozen=True, slots=True)
class Service:
    """One Apprise URL, addressed. `digest` stands for it in SQL, because the URL itself holds passwords."""

    digest: str
    url: str

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]


def services_for(settings: Settings, notification: Notification) -> list[Service]:
    """Where this notification goes. A URL with a placeholder that cannot be filled is left out."""
    customer = notification.audience == "customer"
    urls = {"customer": settings.customer_notify_urls, "operator": settings.alert_urls}
    known = {"email": notification.email, "phone": notification.phone} if customer else {}
    found = []
    for template in urls.get(notification.audience, settings.admin_notify_urls):
        url = template
        for name, value in known.items():
            url = url.replace(f"{{{name}}}", quote(value, safe="") if value else f"{{{name}}}")
        if customer and ("{email}" in url or "{phone}" in url):
            continue
        found.append(
            Service(hashlib.sha256(template.encode()).hexdigest()[:16], with_idempotency_key(url, notification.id))
        )
    return found


def _deliver(attempt: Attempt, db: Session, notification: Notification) -> None:
    if notification.state == "sent":
        return
    chosen = services_for(attempt.settings, notification)
    subject, body = render_message(attempt.settings, notification.kind, notification.locale, notification.params)
    refused = []
    with outside_transaction(db):
        for service in chosen:
            if service.digest in notification.sent_by:
                continue
            if send_message(service.url, subject, body):
                notification.sent_by = [*notification.sent_by, service.digest]
                db.commit()
            else:
                refused.append(service.scheme)
            attempt.renew()
    if refused:
        raise TransientError(f"{len(refused)} of {len(chosen)} services did not take it: {', '.join(refused)}")
    notification.state = "sent" if chosen else "not_configured"
    notification.sent_at = attempt.now if chosen else None
