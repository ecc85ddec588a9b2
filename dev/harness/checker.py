"""Compares what was acknowledged with what is there: rows by plain SQL, files, what the peers saw, the diary of writes.

It uses nothing of the product's own.

Lost: an acknowledged event whose effect is missing. Doubled: any effect that is there more often than once, or that no
event of this kind has, also of an event that was never acknowledged (it may have been recorded before its
acknowledgement got lost).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from dev.harness.traffic import ShopEvent

Owed = tuple[tuple[str, str], ...]

FAILURE: Owed = (
    ("payment_failures", "id"),
    ("payment_failed notices", "address"),
    ("payment_failed mails", "address"),
    ("try 1 to collect", "subject"),
)
SECOND_TRY: Owed = (("declined first retries", "subject"), ("try 2 to collect", "subject"))
PAID: Owed = (
    ("payments", "subject"),
    ("paid retries", "subject"),
    ("active subscriptions", "subject"),
    ("payment_recovered notices", "address"),
    ("payment_recovered mails", "address"),
)
DOCUMENT: Owed = (("documents", "subject"), ("tasks at the document service", "subject"))

# What each kind of event must have done once, and by which of its names the effect is found.
OWED: Mapping[str, Owed] = {
    "failed, pays at 1": FAILURE + PAID,
    "failed, pays at 2": FAILURE + SECOND_TRY + PAID,
    "failed, never pays": (
        *(FAILURE + SECOND_TRY),
        ("declined second retries", "subject"),
        ("suspended subscriptions", "subject"),
        ("payment_given_up notices", "subject"),
        ("subscription_suspended notices", "address"),
        ("subscription_suspended mails", "address"),
    ),
    "paid": (
        ("fulfilled orders", "subject"),
        ("entitlements", "subject"),
        ("changes of access", "subject"),
        ("receipts", "address"),
        ("receipt mails", "address"),
    ),
    "unpaid": (("waiting orders", "subject"),),
    "unhandled": (),
    "document": (
        *DOCUMENT,
        ("completed documents", "subject"),
        ("whole files", "subject"),
        ("document_ready notices", "address"),
        ("document_ready mails", "address"),
    ),
    "broken document": (
        *DOCUMENT,
        ("failed documents", "subject"),
        ("document_failed notices", "subject"),
        ("document_not_ready notices", "address"),
        ("document_not_ready mails", "address"),
    ),
}
QUERIES = {
    "payment_failures": "SELECT event_id, count(*) FROM payment_failures GROUP BY 1",
    "payment_failed notices": "SELECT email, count(*) FROM notifications WHERE kind = 'payment_failed' GROUP BY 1",
    "payment_recovered notices": "SELECT email, count(*) FROM notifications"
    " WHERE kind = 'payment_recovered' GROUP BY 1",
    "subscription_suspended notices": "SELECT email, count(*) FROM notifications"
    " WHERE kind = 'subscription_suspended' GROUP BY 1",
    "paid retries": "SELECT invoice, count(*) FROM payment_retries WHERE state = 'paid' GROUP BY 1",
    "declined first retries": "SELECT invoice, count(*) FROM payment_retries WHERE state = 'declined' AND number = 1"
    " GROUP BY 1",
    "declined second retries": "SELECT invoice, count(*) FROM payment_retries WHERE state = 'declined' AND number = 2"
    " GROUP BY 1",
    "other retries": "SELECT invoice, count(*) FROM payment_retries WHERE number > 2"
    " OR state NOT IN ('paid', 'declined') GROUP BY 1",
    "active subscriptions": "SELECT invoice, count(*) FROM subscriptions JOIN payment_failures"
    " ON payment_failures.subscription = subscriptions.id WHERE status = 'active' GROUP BY 1",
    "suspended subscriptions": "SELECT invoice, count(*) FROM subscriptions JOIN payment_failures"
    " ON payment_failures.subscription = subscriptions.id WHERE status = 'suspended' GROUP BY 1",
    "payment_given_up notices": "SELECT params ->> 'invoice', count(*) FROM notifications"
    " WHERE kind = 'payment_given_up' GROUP BY 1",
    "fulfilled orders": "SELECT session_id, count(*) FROM orders WHERE state = 'fulfilled' GROUP BY 1",
    "waiting orders": "SELECT session_id, count(*) FROM orders WHERE state = 'awaiting_payment' GROUP BY 1",
    "changes of access": "SELECT session_id, access_changes FROM orders WHERE access_changes > 0",
    "entitlements": "SELECT session_id, count(*) FROM entitlements WHERE revoked_at IS NULL GROUP BY 1",
    "receipts": "SELECT email, count(*) FROM notifications WHERE kind = 'receipt' GROUP BY 1",
    "documents": "SELECT document_id, count(*) FROM documents GROUP BY 1",
    "completed documents": "SELECT document_id, count(*) FROM documents WHERE status = 'completed' GROUP BY 1",
    "failed documents": "SELECT document_id, count(*) FROM documents WHERE status = 'failed'"
    " AND error = 'page 3 cannot be read' GROUP BY 1",
    "document_ready notices": "SELECT email, count(*) FROM notifications WHERE kind = 'document_ready' GROUP BY 1",
    "document_not_ready notices": "SELECT email, count(*) FROM notifications"
    " WHERE kind = 'document_not_ready' GROUP BY 1",
    "document_failed notices": "SELECT params ->> 'document', count(*) FROM notifications"
    " WHERE kind = 'document_failed' GROUP BY 1",
    "effects": "SELECT job_id, count(*) FROM effects GROUP BY 1",
}
FILES = "SELECT document_id, stored_as, sha256, size FROM documents WHERE status = 'completed'"
BY_NO_EVENT = ("effects", "writes of ")  # found by the names of jobs and rows, not by any name of an event

Found = Mapping[str, Counter[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Each finding in words."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]


def find(connection: Connection) -> dict[str, Counter[str]]:
    """How often each effect is in the database, by table and name."""
    return {
        what: Counter({str(name): int(times) for name, times in connection.execute(text(query))})
        for what, query in QUERIES.items()
    }


def whole_files(connection: Connection, folder: Path, served: Callable[[str], bytes]) -> dict[str, Counter[str]]:
    """The completed documents whose file in `folder` is, byte for byte, what was `served`, as their row says too."""
    whole: Counter[str] = Counter()
    for name, stored_as, sha256, size in connection.execute(text(FILES)):
        content, file = served(name), folder / stored_as
        said = (sha256, size) == (hashlib.sha256(content).hexdigest(), len(content))
        whole[name] += said and file.is_file() and file.read_bytes() == content
    return {"whole files": +whole}


def judge(events: Mapping[str, ShopEvent], acknowledged: Set[str], found: Found) -> Verdict:
    """`events` by id, those of them that were answered 2xx, and what was found of their effects."""
    lost = [
        f"{event_id}: {what} is missing"
        for event_id in sorted(acknowledged)
        for what, name in _effects(events[event_id])
        if name not in found.get(what, ())
    ]
    doubled = [
        f"{name}: {what} is there {times} times"
        for what, rows in found.items()
        for name, times in sorted(rows.items())
        if times > 1
    ]
    return Verdict(tuple(lost), (*doubled, *_not_owed(events, found)))


def _not_owed(events: Mapping[str, ShopEvent], found: Found) -> Iterator[str]:
    owed = {effect for event in events.values() for effect in _effects(event)}
    for what, rows in found.items():
        if not what.startswith(BY_NO_EVENT):
            yield from (
                f"{name}: {what} is there and nothing asked for it"
                for name in sorted(rows.keys())
                if (what, name) not in owed
            )


def _effects(event: ShopEvent) -> Iterator[tuple[str, str]]:
    for what, by in OWED[event.kind]:
        yield what, str(getattr(event, by))
