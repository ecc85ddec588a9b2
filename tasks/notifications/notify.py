"""Messages to customers, the administrator and the operator, sent through Apprise.

A handler inserts a Notification row in its own transaction and returns the job that sends it; the job's arguments hold
the id of the row, never an address. There is one row per fact: its id is made of the kind, the object and a count, so
that two events about the same fact lead to one message. Whether it is still true, its text, its language and its
recipient are decided when it is sent (kinds.py); until it is sent, each further job of the row decides anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from msgspec import Struct, field
from sqlalchemy.orm import Session

from inbox.errors import HoldfastError, PermanentError, TransientError
from inbox.job import job_id
from settings import Settings
from tasks.clients import stripe
from tasks.connected_accounts import account_of, within
from tasks.db.locking import insert_if_new
from tasks.db.transactions import outside_transaction
from tasks.handler import Attempt, FollowUp
from tasks.lease_heartbeat import renewing_lease
from tasks.models import Notification
from tasks.notifications.apprise_client import send_message
from tasks.notifications.kinds import Message, decider
from tasks.notifications.recipients import Recipient, valid_email, valid_phone
from tasks.notifications.rendering import render_message
from tasks.notifications.templates import Rendered
from tasks.payloads import Text, convert
from tasks.routes import SEND_NOTIFICATION

UNSENT = frozenset({"owed", "obsolete"})


class Customer(Struct):
    """The fields we use of a Stripe customer. A deleted customer has none of them."""

    email: Text | None = None
    phone: Text | None = None
    preferred_locales: list[Text] | None = field(default_factory=list)


def notify_customer(
    db: Session,
    attempt: Attempt,
    kind: str,
    email: str | None = None,
    *,
    phone: str | None = None,
    customer: str | None = None,
    locale: str | None = None,
    about: str = "",
    count: str | int = "",
    delay_seconds: int = 0,
    **params: Any,
) -> FollowUp:
    """Enqueue the message `kind` to a customer, through CUSTOMER_NOTIFY_URLS.

    `about` and `count` name the fact, such as an invoice and the number of the failed attempt; without `about` it is
    the event. `customer` is Stripe's id: with STRIPE_API_KEY address and language are fetched when the message is sent.
    `email`, `phone` and `locale` are used if nothing newer is known then. Without any address the administrator gets
    the message no_address instead.
    """
    recipient = {"customer": customer, "email": email, "phone": phone, "locale": locale}
    fact = _Fact(kind, "customer", about, str(count), params)
    return replace(_enqueue(db, attempt, fact, recipient), delay_seconds=delay_seconds)


def notify_admin(
    db: Session, attempt: Attempt, kind: str, *, about: str = "", count: str | int = "", **params: Any
) -> FollowUp:
    """Enqueue the message `kind` to the administrator, at ADMIN_NOTIFY_URLS; without them it is stored, not sent."""
    return _enqueue(db, attempt, _Fact(kind, "admin", about, str(count), params))


def notify_operator(db: Session, attempt: Attempt, kind: str, **params: Any) -> FollowUp:
    """Enqueue the message `kind` to the operator: ALERT_NOTIFY_URLS, or else ADMIN_NOTIFY_URLS; neither: not sent."""
    return _enqueue(db, attempt, _Fact(kind, "operator", "", "", params))


def notify_admin_now(db: Session, attempt: Attempt, kind: str, *, about: str = "", **params: Any) -> None:
    """Send a message to the administrator at once (ADMIN_NOTIFY_URLS), for a job that is about to become a dead letter.

    Commits. A message that cannot be sent now stays in the table with the state "owed", and is not retried.
    """
    key = str(notify_admin(db, attempt, kind, about=about, **params).args["notification"])
    db.commit()
    try:
        notification = db.get_one(Notification, key)
        notification.state = _send(attempt, db, notification)
        db.commit()
    except HoldfastError:
        db.rollback()


def send(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Send one notification to every service that has not accepted it yet, if it is still true.

    Raises TransientError if a service rejects it. A worker that dies between a service's response and the commit sends
    the message twice; recipients can recognise this by the headers Message-ID and X-Idempotency-Key of a mail.
    """
    notification = db.get(Notification, str(attempt.args["notification"]))
    if notification is None:
        raise PermanentError("there is no such notification")
    if notification.state in UNSENT:
        notification.state = _send(attempt, db, notification)
    if notification.state != "no_address":
        return []
    about = {"message": notification.kind, "customer": notification.customer or "", "event": attempt.event.id}
    return [notify_admin(db, attempt, "no_address", about=notification.id, **about)]


@dataclass(frozen=True, slots=True)
class _Fact:
    """What a message is about."""

    kind: str
    audience: str
    about: str
    count: str
    params: Mapping[str, Any]


def _enqueue(db: Session, attempt: Attempt, fact: _Fact, recipient: Mapping[str, str | None] | None = None) -> FollowUp:
    effect = f"notify.{fact.kind}"
    if fact.about and (attempt.args or fact.count):  # one event and its delayed jobs may each send several of a kind
        effect += "." + ".".join(filter(None, (fact.about, fact.count)))
    if fact.about:
        account = account_of(attempt) if attempt.event.source == "stripe" else ""
        key = ":".join(filter(None, ("notify", fact.kind, within(account, fact.about), fact.count)))
    else:
        key = job_id(attempt.event.source, attempt.event.id, effect)
    row = {"kind": fact.kind, "audience": fact.audience, "about": fact.about, "params": dict(fact.params)}
    stamp = {"state": "owed", "sent_by": [], "created_at": attempt.now, "event": attempt.event.id}
    insert_if_new(db, Notification, id=key, **row, **(recipient or {}), **stamp)
    # Two jobs of one message never run at the same time: the second finds it sent.
    return FollowUp(effect, SEND_NOTIFICATION, {"notification": key}, ordering_key=key)


def _send(attempt: Attempt, db: Session, notification: Notification) -> str:
    """Decide about the notification and send it. Returns its new state."""
    settings = attempt.settings
    if not _urls(settings, notification.audience):
        return "not_configured"
    decide = decider(notification.kind)
    message = decide(attempt, db, notification) if decide else Message(notification.params)
    if message is None:
        return "obsolete"
    template = message.template or notification.kind
    if {notification.kind, template} & {*settings.messages_off}:
        return "off"
    to = _recipient(attempt, db, notification, message.to)
    services = [Service(url, to) for url in _urls(settings, notification.audience)]
    reachable = [service for service in services if service.can_reach]
    if not reachable:
        return "no_address"
    rendered, locale = render_message(settings, template, to.locales, message.values)
    _deliver(attempt, db, notification, reachable, rendered)
    if notification.audience == "customer":
        notification.email, notification.phone, notification.locale = to.email or None, to.phone or None, locale
    notification.sent_at = attempt.now
    return "sent"


def _recipient(attempt: Attempt, db: Session, notification: Notification, known: Recipient) -> Recipient:
    """The customer as Stripe has them now, else as the stored facts have them, else as the event had them."""
    if notification.audience != "customer":
        return Recipient()
    current = _fetch_customer(attempt, db, notification.customer) or Customer()
    locales = current.preferred_locales or known.locales or filter(None, [notification.locale])
    return Recipient(
        valid_email(current.email) or known.email or valid_email(notification.email),
        valid_phone(current.phone) or known.phone or valid_phone(notification.phone),
        tuple(locales),
    )


def _fetch_customer(attempt: Attempt, db: Session, customer: str | None) -> Customer | None:
    """None without an id or an API key, for a deleted customer, and if the key may not read customers."""
    if not customer or not attempt.settings.stripe_api_key:
        return None
    try:
        with outside_transaction(db):
            return convert(stripe.fetch_customer(attempt, customer), Customer)
    except PermanentError:
        return None


@dataclass(frozen=True, slots=True)
class Service:
    """An Apprise URL and the recipient for its placeholders. SQL holds its `digest`, because it holds passwords."""

    url: str
    to: Recipient

    @property
    def digest(self) -> str:
        return sha256(self.url.encode()).hexdigest()[:16]

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def can_reach(self) -> bool:
        """Whether everything is known that its placeholders stand for."""
        return bool(self.to.email or "{email}" not in self.url) and bool(self.to.phone or "{phone}" not in self.url)


def _urls(settings: Settings, audience: str) -> tuple[str, ...]:
    by_audience = {"customer": settings.customer_notify_urls, "operator": settings.alert_urls}
    return by_audience.get(audience, settings.admin_notify_urls)


def _deliver(
    attempt: Attempt, db: Session, notification: Notification, services: list[Service], message: Rendered
) -> None:
    """Send to each service that has not accepted the message yet. Raises TransientError if one rejects it."""
    rejected = []
    with outside_transaction(db), renewing_lease(attempt.renew):
        for service in services:
            if service.digest in notification.sent_by:
                continue
            name, deadline = attempt.settings.business_name, attempt.deadline
            if send_message(service.url, message, notification.id, service.to, name, deadline=deadline):
                notification.sent_by = [*notification.sent_by, service.digest]
                db.commit()
            else:
                rejected.append(service.scheme)
            attempt.renew()
    if rejected:
        raise TransientError(f"{len(rejected)} of {len(services)} services rejected the message: {', '.join(rejected)}")
