"""What became of the month's customers, and what must have: plain SQL, the mails, and what the application heard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from cli.stripe_events import NEW_VERSION, OLD_VERSION, StripeObject
from dev.demo.facts import mail_headers, open_database


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a time line. `column` is one of in, did, told."""

    at: float  # seconds since 1970
    column: str
    text: str


@dataclass(slots=True)
class Story:
    """One customer, and the ids by which what became of them is found."""

    email: str
    customer: str
    currency: str = "usd"
    version: str = NEW_VERSION  # of Stripe's API, in the events that localstripe does not make
    subscription: str = ""
    session: str = ""
    events: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)  # what no row tells

    def say(self, column: str, text: str) -> None:
        self.lines.append(Line(time.time(), column, text))


@dataclass(frozen=True, slots=True)
class Found:
    """What is there of one story."""

    status: str | None  # of the subscription
    tries: list[str]  # how our own retries ended, in their order
    access: bool
    mails: list[str]  # to customer and administrator, by their kind, sorted
    receipt: str  # its subject
    heard: list[str]  # by the application: what holds is the last
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a story must end. `tries` names each outcome once: how often it is declined depends on when it is mended."""

    title: str
    status: str | None
    tries: list[str]
    access: bool
    mails: list[str]
    heard: list[str]
    receipt: str
    currency: str = "usd"
    language: str = "en"
    version: str = NEW_VERSION


OF_INVOICES = "JOIN invoices ON id = invoice WHERE subscription = ?"
BOUGHT = ["order.fulfilled", "access.granted"]
STORIES: Mapping[str, Wanted] = {
    "recovers": Wanted(
        "A renewal fails, is tried again, and the new card pays",
        "active",
        ["declined", "paid"],
        True,
        ["payment_failed", "payment_recovered", "receipt"],
        BOUGHT,
        "Ihre Bestellung: 49,00 EUR",
        currency="eur",
        language="de",
    ),
    "gives-up": Wanted(
        "A renewal fails to the end: suspended",
        "suspended",
        ["declined"],
        False,
        ["payment_failed", "payment_given_up", "receipt", "subscription_suspended"],
        [*BOUGHT, "access.revoked: subscription_suspended"],
        "Votre commande : 49,00 EUR",
        currency="eur",
        language="fr-CA",
    ),
    "refunded": Wanted(
        "A subscription is refunded, by an old version of Stripe's API",
        "active",
        [],
        False,
        ["receipt"],
        [*BOUGHT, "access.revoked: refunded"],
        "Your order: 4900 JPY",
        currency="jpy",
        version=OLD_VERSION,
    ),
    "renewed": Wanted(
        "A renewal is refunded, by the newest version",
        "active",
        [],
        False,
        ["receipt"],
        [*BOUGHT, "access.revoked: refunded"],
        "Your order: 49.00 USD",
    ),
    "disputed": Wanted(
        "A payment is disputed, and the dispute is won",
        None,
        [],
        True,
        ["dispute_closed", "dispute_opened", "receipt"],
        [*BOUGHT, "access.revoked: disputed", "access.granted"],
        "Your order: 4.900 KWD",
        currency="kwd",
    ),
    "missed": Wanted(
        "Something is bought while the receiver is down: the event is lost, and found by asking Stripe",
        None,
        [],
        True,
        ["receipt"],
        BOUGHT,
        "Your order: 49.00 USD",
    ),
}


def judge(name: str, found: Found) -> list[str]:
    """Each thing that is not as it must be, in a line."""
    wanted = STORIES[name]
    pairs = {
        "the subscription": (wanted.status, found.status),
        "the retries": (wanted.tries, list(dict.fromkeys(found.tries))),
        "access": (wanted.access, found.access),
        "the mails": (wanted.mails, found.mails),
        "the receipt": (wanted.receipt, found.receipt),
        "what the application heard": (wanted.heard, found.heard),
    }
    return [f"{name}: {what}: should be {must}, is {it}" for what, (must, it) in pairs.items() if must != it]


def read_month(folder: Path, story: Story, heard: Sequence[StripeObject] = ()) -> Found:
    """`heard` is all that the application was told."""
    with closing(open_database(folder)) as db:
        status = _column(db, "SELECT status FROM subscriptions WHERE id = ?", story.subscription)
        revoked = _column(db, "SELECT revoked_at FROM entitlements WHERE session_id = ?", story.session)
        tries = f"SELECT payment_retries.state FROM payment_retries {OF_INVOICES} ORDER BY payment_retries.number"
        mails = list(_mails(folder, story))
        mine = [thing["data"] | {"type": thing["type"]} for thing in heard if thing["data"]["session"] == story.session]
        return Found(
            status=status[0] if status else None,
            tries=[state for state in _column(db, tries, story.subscription) if state != "planned"],
            access=bool(revoked) and revoked == [None] * len(revoked),
            mails=sorted(kind for kind, _ in mails),
            receipt=", ".join(subject for kind, subject in mails if kind == "receipt"),
            heard=[_said(one) for one in sorted(mine, key=lambda one: one.get("change", 0))],
            lines=[*_retries(db, story), *_graces(db, story), *_access(db, story), *_told(db, story)],
        )


def _retries(db: Connection, story: Story) -> Iterator[Line]:
    query = (
        "SELECT done_at, payment_retries.number, payment_retries.state, decline_code"
        f" FROM payment_retries {OF_INVOICES} AND done_at IS NOT NULL"
    )
    for at, number, state, code in db.execute(query, (story.subscription,)):
        yield Line(_time(at), "did", f"retry {number}: {state}" + (f" ({code})" if code else ""))


def _graces(db: Connection, story: Story) -> Iterator[Line]:
    query = f"SELECT done_at FROM payment_graces {OF_INVOICES} AND payment_graces.state = 'over'"
    for (at,) in db.execute(query, (story.subscription,)):
        yield Line(_time(at), "did", "grace time over: subscription suspended")


def _access(db: Connection, story: Story) -> Iterator[Line]:
    for at, kind, text in db.execute("SELECT created_at, type, data FROM app_messages"):
        data = json.loads(text)
        if data["session"] == story.session:
            yield Line(_time(at), "did", _said(data | {"type": kind}))


def _told(db: Connection, story: Story) -> Iterator[Line]:
    for key, at, audience, kind in db.execute("SELECT id, sent_at, audience, kind FROM notifications"):
        if key.split(":")[1] in story.events and at:
            yield Line(_time(at), "told", f"{audience}: {kind.replace('_', ' ')}")


def _mails(folder: Path, story: Story) -> Iterator[tuple[str, str]]:
    """Kind and subject of every mail to the customer, and of those to the administrator that an event of this story
    led to."""
    for path in (folder / "mail" / "new").glob("*"):
        key, to, subject = mail_headers(path)
        if to == story.email or (to.startswith("admin@") and key.split(":")[1] in story.events):
            yield key.partition(":notify.")[2].partition(".")[0], subject


def _said(message: Mapping[str, Any]) -> str:
    reason = message.get("reason")
    return str(message["type"]) + (f": {reason}" if reason else "")


def _column(db: Connection, query: str, key: str) -> list[Any]:
    return [value for (value,) in db.execute(query, (key,))]


def _time(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
