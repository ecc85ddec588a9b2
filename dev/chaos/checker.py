"""Compares what was acknowledged with what is in the database: plain SQL, and nothing of the product's own.

Lost: an acknowledged event whose effect is missing. Doubled: any effect that is there more often than once, also of an
event that was never acknowledged (it may have been recorded before its acknowledgement got lost).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from sqlalchemy import Connection, text

from dev.chaos.traffic import Sent

# What each kind of event must have done once, and by which of its names the effect's row is found.
OWED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "failed": (("payment_failures", "id"), ("payment_failed notices", "address"), ("mails", "address")),
    "paid": (
        ("fulfilled orders", "subject"),
        ("entitlements", "subject"),
        ("receipts", "address"),
        ("mails", "address"),
    ),
    "unpaid": (("waiting orders", "subject"),),
    "unhandled": (),
}
QUERIES = {
    "payment_failures": "SELECT event_id, count(*) FROM payment_failures GROUP BY 1",
    "payment_failed notices": "SELECT email, count(*) FROM notifications WHERE kind = 'payment_failed' GROUP BY 1",
    "fulfilled orders": "SELECT session_id, count(*) FROM orders WHERE state = 'fulfilled' GROUP BY 1",
    "waiting orders": "SELECT session_id, count(*) FROM orders WHERE state = 'awaiting_payment' GROUP BY 1",
    "entitlements": "SELECT session_id, count(*) FROM entitlements GROUP BY 1",
    "receipts": "SELECT email, count(*) FROM notifications WHERE kind = 'receipt' GROUP BY 1",
    "effects": "SELECT job_id, count(*) FROM effects GROUP BY 1",
}
AT_LEAST_ONCE = "mails"  # a mail service knows no idempotency key; ARCHITECTURE.md says so

Found = Mapping[str, Counter[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Each finding in words."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    repeated_mails: int


def find(connection: Connection) -> dict[str, Counter[str]]:
    """How often each effect is in the database, by table and name."""
    return {
        what: Counter({str(name): int(times) for name, times in connection.execute(text(query))})
        for what, query in QUERIES.items()
    }


def judge(events: Mapping[str, Sent], acknowledged: Set[str], found: Found) -> Verdict:
    """`events` by id, those of them that were answered 2xx, and what was found of their effects."""
    lost = [
        f"{event_id}: {what} is missing"
        for event_id in sorted(acknowledged)
        for what, name in _effects(events[event_id])
        if found[what][name] == 0
    ]
    doubled = [
        f"{name}: {what} is there {times} times"
        for what, rows in found.items()
        for name, times in sorted(rows.items())
        if times > 1 and what != AT_LEAST_ONCE
    ]
    repeated = sum(times - 1 for times in found[AT_LEAST_ONCE].values() if times > 1)
    return Verdict(tuple(lost), tuple(doubled), repeated)


def _effects(event: Sent) -> Iterator[tuple[str, str]]:
    for what, by in OWED[event.kind]:
        yield what, str(getattr(event, by))
