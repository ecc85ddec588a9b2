"""How the stories of the month must end, and how they ended: by SQL, the mails and the webhooks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from cli.stripe_events import NEW_VERSION, StripeObject
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
    objects: set[str] = field(default_factory=set)  # ids of what those events are about
    lines: list[Line] = field(default_factory=list)  # of the timeline, that are in no row

    def say(self, column: str, line: str) -> None:
        self.lines.append(Line(time.time(), column, line))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a story ended, or how it must end. The defaults are those of a purchase."""

    receipt: str  # its subject
    status: str | None = None  # of the subscription
    access: bool = True
    retries: tuple[str, ...] = ()  # each outcome once: how many are declined depends on when the card is replaced
    mails: tuple[str, ...] = ("receipt",)  # to customer and administrator, by kind, sorted
    # To the application, in the order in which they are valid.
    webhooks: tuple[str, ...] = ("order.fulfilled", "access.granted")


@dataclass(frozen=True, slots=True)
class Plot:
    """A story, and how it must end."""

    title: str
    ending: Ending
    currency: str = "usd"
    language: str = "en"
    version: str = NEW_VERSION


STORIES = msgspec.toml.decode((Path(__file__).parent / "stories.toml").read_text(), type=dict[str, Plot])

RETRIES = """SELECT payment_retries.state FROM payment_retries JOIN invoices ON id = invoice
WHERE subscription = :subscription AND payment_retries.state NOT IN ('planned', 'cancelled')
GROUP BY payment_retries.state ORDER BY min(payment_retries.number)"""
ACCESS = "SELECT count(*) > 0 AND count(revoked_at) = 0 FROM entitlements WHERE customer = :customer"
TIMELINE = (Path(__file__).parent / "timeline.sql").read_text()
NOTIFICATIONS = "SELECT event, sent_at, audience, kind FROM notifications WHERE sent_at IS NOT NULL"


def judge(name: str, ending: Ending) -> list[str]:
    """A line for each thing that is not as it must be."""
    pairs = {one.name: (getattr(STORIES[name].ending, one.name), getattr(ending, one.name)) for one in fields(Ending)}
    return [f"{name}: {what}: must be {right}, is {it}" for what, (right, it) in pairs.items() if right != it]


def read_ending(db: Connection, story: Story, mails: Sequence[Mail], webhooks: Sequence[StripeObject]) -> Ending:
    """`mails` and `webhooks` are those of all stories."""
    own = [
        mail for mail in mails if mail.to == story.email or (mail.to[:6] == "admin@" and mail.about in story.objects)
    ]
    sent = [one["data"] | {"type": one["type"]} for one in webhooks if one["data"]["customer"]["id"] == story.customer]
    return Ending(
        status=read_status(db, story),
        retries=read_retries(db, story),
        access=has_access(db, story),
        mails=tuple(sorted(mail.kind for mail in own)),
        receipt=", ".join(mail.subject for mail in own if mail.kind == "receipt"),
        webhooks=tuple(_text(one) for one in sorted(sent, key=lambda one: one["sequence"]) if _is_about_access(one)),
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
    lines = [Line(_time(at), "did", line) for at, line in _query(db, TIMELINE, story)]
    for event, at, audience, kind in db.execute(text(NOTIFICATIONS)):
        if event in story.events:
            lines.append(Line(_time(at), "notified", f"{audience}: {kind.replace('_', ' ')}"))
    return lines


def _query(db: Connection, query: str, story: Story) -> Any:
    return db.execute(text(query), {"subscription": story.subscription, "customer": story.customer})


def _is_about_access(webhook: Mapping[str, Any]) -> bool:
    """Not of a renewal, or of a change that keeps access, whose number depends on when the card is replaced."""
    return not str(webhook["type"]).startswith("subscription.")


def _text(webhook: Mapping[str, Any]) -> str:
    reason = webhook.get("reason")
    return str(webhook["type"]) + (f": {reason}" if reason else "")


def _time(stored: str) -> float:
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()
