"""Messages to customers, the administrator and the operator, sent through Apprise.

A handler inserts a Notification row in its own transaction and returns the job that sends it; the job's arguments hold
the id of the row, never an address. Texts come from templates/<locale>/<kind>.txt, or else templates/<kind>.txt; files
in the folder TEMPLATES take precedence over the built-in ones.
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

ADDRESS = re.compile(r"[^\s@,;<>]+@[^\s@,;<>]+")  # one address only: Apprise would accept a list
PHONE = re.compile(r"\+?[0-9 ().-]{5,30}")


class Customer(Struct):
    """The fields we use of a Stripe customer. A deleted customer has none of them."""

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
    """Enqueue the message `kind` to a customer, at `email` and `phone`, through CUSTOMER_NOTIFY_URLS.

    `customer` is Stripe's id. With STRIPE_API_KEY the customer's language is fetched before the message is sent, and
    also the address, if the event has no valid one; `locale` is the fallback for the language. Without any address the
    administrator gets the message no_address instead. `about` is the id of the object that the message is about.
    """
    email, phone = _valid_contacts(email, phone)
    if not email and not phone and not (customer and attempt.settings.stripe_api_key):
        return notify_admin(db, attempt, "no_address", message=kind, event=attempt.event.id)
    recipient = {"audience": "customer", "email": email, "phone": phone, "customer": customer, "about": about}
    return _enqueue(db, attempt, kind, params, recipient | {"locale": locale})


def notify_admin(db: Session, attempt: Attempt, kind: str, *, about: str = "", **params: str) -> FollowUp:
    """Enqueue the message `kind` to the administrator, at ADMIN_NOTIFY_URLS; without them it is stored, not sent."""
    return _enqueue(db, attempt, kind, params, {"audience": "admin", "about": about})


def notify_operator(db: Session, attempt: Attempt, kind: str, **params: str) -> FollowUp:
    """Enqueue the message `kind` to the operator: ALERT_NOTIFY_URLS, or else ADMIN_NOTIFY_URLS; neither: not sent."""
    return _enqueue(db, attempt, kind, params, {"audience": "operator", "about": ""})


def notify_admin_now(db: Session, attempt: Attempt, kind: str, **params: str) -> None:
    """Send a message to the administrator at once (ADMIN_NOTIFY_URLS), for a job that is about to become a dead letter.

    Commits. A message that cannot be sent now stays in the table with the state "owed", and is not retried.
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
    """Send one notification to every service that has not accepted it yet.

    Raises TransientError if a service rejects it. A worker that dies between a service's response and the commit sends
    the message twice; recipients can recognise this by the header X-Idempotency-Key of a mail, the job's key.
    """
    notification = db.get(Notification, str(attempt.args["notification"]))
    if notification is None:
        raise PermanentError("there is no such notification")
    _refresh_from_stripe(attempt, db, notification)
    if notification.audience == "customer" and not notification.email and not notification.phone:
        notification.state = "no_address"
        return [notify_admin(db, attempt, "no_address", message=notification.kind, event=attempt.event.id)]
    _deliver(attempt, db, notification)
    return []


def _refresh_from_stripe(attempt: Attempt, db: Session, notification: Notification) -> None:
    """Fetch the customer's language from Stripe, and an address, if the event had none."""
    if notification.state != "owed" or not notification.customer or not attempt.settings.stripe_api_key:
        return
    try:
        with outside_transaction(db):
            found = convert(stripe.fetch_customer(attempt, notification.customer), Customer)
    except PermanentError:  # deleted, or the key may not read customers: keep what the event has
        return
    notification.locale = found.preferred_locales[0] if found.preferred_locales else notification.locale
    if not notification.email and not notification.phone:
        notification.email, notification.phone = _valid_contacts(found.email, found.phone)


def _valid_contacts(email: str | None, phone: str | None) -> tuple[str | None, str | None]:
    """(email, phone), each None if it is not valid."""
    return (
        email if email and _is_address(email) else None,
        phone if phone and PHONE.fullmatch(phone) else None,
    )


def _is_address(email: str) -> bool:
    """True for one address that Apprise parses unchanged: it would mail o'hara@example.com to hara@example.com."""
    parsed = is_email(email) or {}  # type: ignore[no-untyped-call]
    return bool(ADDRESS.fullmatch(email)) and parsed.get("full_email") == email


def _enqueue(
    db: Session, attempt: Attempt, kind: str, params: dict[str, str], recipient: dict[str, str | None]
) -> FollowUp:
    effect = f"notify.{kind}"
    if attempt.args and recipient["about"]:  # several delayed jobs of one event may each send this kind
        effect += f".{recipient['about']}"
    key = job_id(attempt.event.source, attempt.event.id, effect)
    stamp: dict[str, Any] = {"state": "owed", "sent_by": [], "created_at": attempt.now}
    insert_if_new(db, Notification, id=key, kind=kind, params=params, **recipient, **stamp)
    return FollowUp(effect, SEND_NOTIFICATION, {"notification": key})


@dataclass(frozen=True, slots=True)
class Service:
    """An Apprise URL with the recipient filled in. SQL holds only `digest`, because the URL holds passwords."""

    digest: str
    url: str

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]


def services_for(settings: Settings, notification: Notification) -> list[Service]:
    """The services for this notification, without those whose URL has a placeholder that cannot be filled."""
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
    rejected = []
    with outside_transaction(db):
        for service in chosen:
            if service.digest in notification.sent_by:
                continue
            if send_message(service.url, subject, body):
                notification.sent_by = [*notification.sent_by, service.digest]
                db.commit()
            else:
                rejected.append(service.scheme)
            attempt.renew()
    if rejected:
        raise TransientError(f"{len(rejected)} of {len(chosen)} services rejected the message: {', '.join(rejected)}")
    notification.state = "sent" if chosen else "not_configured"
    notification.sent_at = attempt.now if chosen else None
