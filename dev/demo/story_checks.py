"""How the stories of the month must end, and how they ended: by SQL, the mails and the webhooks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from cli.stripe_events import NEW_VERSION, OLD_VERSION, StripeObject
from dev.harness.checker import Mail


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a timeline. `column` is in, did or notified."""

    at: float  # seconds since 1970
    column: str
    text: str


@dataclass(slots=True)
class Story:
    """One customer, and the ids by which the rows about them are found."""

    email: str
    customer: str
    currency: str = "usd"
    version: str = NEW_VERSION  # of Stripe's API, in the events that localstripe does not make
    subscription: str = ""
    session: str = ""
    events: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)  # of the timeline, that are in no row

    def say(self, column: str, line: str) -> None:
        self.lines.append(Line(time.time(), column, line))


BOUGHT = ("order.fulfilled", "access.granted")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a story ended, or how it must end. The defaults are those of a purchase."""

    receipt: str  # its subject
    status: str | None = None  # of the subscription
    access: bool = True
    retries: tuple[str, ...] = ()  # each outcome once: how many are declined depends on when the card is replaced
    mails: tuple[str, ...] = ("receipt",)  # to customer and administrator, by kind, sorted
    webhooks: tuple[str, ...] = BOUGHT  # to the application, in the order in which they are valid


@dataclass(frozen=True, slots=True)
class Plot:
    """A story, and how it must end."""

    title: str
    ending: Ending
    currency: str = "usd"
    language: str = "en"
    version: str = NEW_VERSION


REFUNDED = (*BOUGHT, "access.revoked: refunded")
STORIES: Mapping[str, Plot] = {
    "recovers": Plot(
        "A renewal fails, is retried, and the new card pays",
        Ending(
            "Ihre Bestellung: 49,00 EUR",
            status="active",
            retries=("declined", "paid"),
            mails=("payment_failed", "payment_recovered", "receipt"),
        ),
        currency="eur",
        language="de",
    ),
    "gives-up": Plot(
        "A renewal fails and so do all retries: the subscription is suspended",
        Ending(
            "Votre commande : 49,00 EUR",
            status="suspended",
            access=False,
            retries=("declined",),
            mails=("payment_failed", "payment_given_up", "receipt", "subscription_suspended"),
            webhooks=(*BOUGHT, "access.revoked: subscription_suspended"),
        ),
        currency="eur",
        language="fr-CA",
    ),
    "refunded": Plot(
        "A subscription is refunded, in an old version of Stripe's API",
        Ending("Your order: 4900 JPY", "active", access=False, webhooks=REFUNDED),
        currency="jpy",
        version=OLD_VERSION,
    ),
    "renewed": Plot(
        "A renewal is refunded, in the newest version",
        Ending("Your order: 49.00 USD", "active", access=False, webhooks=REFUNDED),
    ),
    "disputed": Plot(
        "A payment is disputed, and the dispute is won",
        Ending(
            "Your order: 4.900 KWD",
            mails=("dispute_closed", "dispute_opened", "receipt"),
            webhooks=(*BOUGHT, "access.revoked: disputed", "access.granted"),
        ),
        currency="kwd",
    ),
    "missed": Plot(
        "A purchase while the receiver is down: its event is lost, and reconcile finds it at Stripe",
        Ending("Your order: 49.00 USD"),
    ),
}

RETRIES = """SELECT payment_retries.state FROM payment_retries JOIN invoices ON id = invoice
WHERE subscription = :subscription AND payment_retries.state <> 'planned'
GROUP BY payment_retries.state ORDER BY min(payment_retries.number)"""
ACCESS = "SELECT count(*) > 0 AND count(revoked_at) = 0 FROM entitlements WHERE session_id = :session"
TIMELINE = """
SELECT done_at AS at, 'did', 'retry ' || payment_retries.number || ': ' || payment_retries.state
    || coalesce(' (' || decline_code || ')', '')
FROM payment_retries JOIN invoices ON id = invoice WHERE subscription = :subscription AND done_at IS NOT NULL
UNION ALL SELECT done_at, 'did', 'grace period over: subscription suspended'
FROM payment_graces JOIN invoices ON id = invoice WHERE subscription = :subscription AND payment_graces.state = 'over'
UNION ALL SELECT created_at, 'did', type || coalesce(': ' || (data ->> 'reason'), '')
FROM app_messages WHERE data ->> 'session' = :session"""
NOTIFICATIONS = "SELECT id, sent_at, audience, kind FROM notifications WHERE sent_at IS NOT NULL"


def judge(name: str, ending: Ending) -> list[str]:
    """A line for each thing that is not as it must be."""
    pairs = {one.name: (getattr(STORIES[name].ending, one.name), getattr(ending, one.name)) for one in fields(Ending)}
    return [f"{name}: {what}: must be {right}, is {it}" for what, (right, it) in pairs.items() if right != it]


def read_ending(db: Connection, story: Story, mails: Sequence[Mail], webhooks: Sequence[StripeObject]) -> Ending:
    """`mails` and `webhooks` are those of all stories."""
    own = [mail for mail in mails if mail.to == story.email or (mail.to[:6] == "admin@" and mail.event in story.events)]
    sent = [one["data"] | {"type": one["type"]} for one in webhooks if one["data"]["session"] == story.session]
    return Ending(
        status=read_status(db, story),
        retries=read_retries(db, story),
        access=has_access(db, story),
        mails=tuple(sorted(mail.kind for mail in own)),
        receipt=", ".join(mail.subject for mail in own if mail.kind == "receipt"),
        webhooks=tuple(_text(one) for one in sorted(sent, key=lambda one: one.get("change", 0))),
    )


def read_status(db: Connection, story: Story) -> str | None:
    status: str | None = _query(db, "SELECT status FROM subscriptions WHERE id = :subscription", story).scalar()
    return status


def read_retries(db: Connection, story: Story) -> tuple[str, ...]:
    return tuple(_query(db, RETRIES, story).scalars())


def has_access(db: Connection, story: Story) -> bool:
    return bool(_query(db, ACCESS, story).scalar())


def read_timeline(db: Connection, story: Story) -> list[Line]:
    """What we did, and the notifications that were sent."""
    lines = [Line(_time(at), column, line) for at, column, line in _query(db, TIMELINE, story)]
    for key, at, audience, kind in db.execute(text(NOTIFICATIONS)):
        if key.split(":")[1] in story.events:
            lines.append(Line(_time(at), "notified", f"{audience}: {kind.replace('_', ' ')}"))
    return lines


def _query(db: Connection, query: str, story: Story) -> Any:
    return db.execute(text(query), {"subscription": story.subscription, "session": story.session})


def _text(webhook: Mapping[str, Any]) -> str:
    reason = webhook.get("reason")
    return str(webhook["type"]) + (f": {reason}" if reason else "")


def _time(stored: str) -> float:
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()
