"""Compares what was acknowledged with what is there: rows, files, mails, what the simulators saw, the log of writes.

It reads plain SQL and plain files, and uses no code of the product.

Lost: an acknowledged event whose effect is missing. Doubled: an effect that is there more than once, also of an event
that was never acknowledged (it may have been recorded before its acknowledgement got lost). Wrong: an effect that
nothing asked for, a delivery with the wrong answer, and jobs that are dead or unfinished without being so by design.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, text

from dev.harness.sender import Answer
from dev.harness.traffic import ShopEvent

Effects = tuple[tuple[str, str], ...]
Found = Mapping[str, Counter[str]]

FAILURE: Effects = (
    ("payment_failures", "id"),
    ("payment_failed notices", "address"),
    ("payment_failed mails", "address"),
    ("try 1 to collect", "subject"),
)
SECOND_TRY: Effects = (("declined first retries", "subject"), ("try 2 to collect", "subject"))
PAID: Effects = (
    ("payments", "subject"),
    ("paid retries", "subject"),
    ("active subscriptions", "subject"),
    ("payment_recovered notices", "address"),
    ("payment_recovered mails", "address"),
)
DOCUMENT: Effects = (("documents", "subject"), ("tasks at the document service", "subject"))

DEMO_FAILURE: Effects = (
    *FAILURE[:3],
    ("planned retries", "subject"),  # an hour later, so none of them is made
    ("past due by this event", "id"),
)
DEMO_DOCUMENT: Effects = (
    ("documents", "subject"),
    ("completed documents", "subject"),
    ("whole files", "subject"),
    ("document_ready notices", "address"),
    ("document_ready mails", "address"),
)
DEMO_FAILED_DOCUMENT: Effects = (
    ("documents", "subject"),
    ("document_failed notices", "subject"),
    ("document_not_ready notices", "address"),
    ("document_not_ready mails", "address"),
)
# What each kind of event must have done once, and by which of its names the effect is found.
EXPECTED: Mapping[str, Effects] = {
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
    # Of the demo only.
    "failed": DEMO_FAILURE,
    "failed earlier": (("payment_failures", "id"),),
    "failed at localstripe": (("payment_failures", "id"), ("planned retries", "subject")),
    "forged": (),
    "demo document": DEMO_DOCUMENT,
    "retried demo document": DEMO_DOCUMENT,
    "broken demo document": (*DEMO_FAILED_DOCUMENT, ("failed documents", "subject")),
    "forbidden document": (*DEMO_FAILED_DOCUMENT, ("otherwise failed documents", "subject")),
}
MAIL: Effects = (("payment_failed notices", "address"), ("payment_failed mails", "address"))
ALLOWED: Mapping[str, Effects] = {  # may be there, or not
    "failed earlier": MAIL,
    "failed at localstripe": MAIL,
    "retried demo document": (("document_failed notices", "subject"),),
}


def _count(table: str, name: str, where: str = "true") -> str:
    """A query for how many rows there are of each name."""
    return f"SELECT {name}, count(*) FROM {table} WHERE {where} GROUP BY 1"


NOTICES = ("payment_failed", "payment_recovered", "subscription_suspended", "document_ready", "document_not_ready")
ERROR = "page 3 cannot be read"  # of the document service, for documents that must fail
OF_FAILURES = "subscriptions JOIN payment_failures ON payment_failures.subscription = subscriptions.id"
OF_INVOICES = "invoices JOIN subscriptions ON subscriptions.id = invoices.subscription"
FIRST_PLANNED = "state = 'planned' AND number = 1"
QUERIES = {
    "payment_failures": _count("payment_failures", "event_id"),
    **{f"{kind} notices": _count("notifications", "email", f"kind = '{kind}'") for kind in NOTICES},
    "receipts": _count("notifications", "email", "kind = 'receipt'"),
    "payment_given_up notices": _count("notifications", "params ->> 'invoice'", "kind = 'payment_given_up'"),
    "document_failed notices": _count("notifications", "params ->> 'document'", "kind = 'document_failed'"),
    "paid retries": _count("payment_retries", "invoice", "state = 'paid'"),
    "declined first retries": _count("payment_retries", "invoice", "state = 'declined' AND number = 1"),
    "declined second retries": _count("payment_retries", "invoice", "state = 'declined' AND number = 2"),
    "planned retries": _count("payment_retries", "invoice", FIRST_PLANNED),
    "other retries": _count(
        "payment_retries", "invoice", f"number > 2 OR state NOT IN ('paid', 'declined') AND NOT ({FIRST_PLANNED})"
    ),
    "past due by this event": _count(OF_INVOICES, "invoices.seen_event", "subscriptions.status = 'past_due'"),
    "active subscriptions": _count(OF_FAILURES, "invoice", "status = 'active'"),
    "suspended subscriptions": _count(OF_FAILURES, "invoice", "status = 'suspended'"),
    "fulfilled orders": _count("orders", "session_id", "state = 'fulfilled'"),
    "waiting orders": _count("orders", "session_id", "state = 'awaiting_payment'"),
    "changes of access": "SELECT session_id, access_changes FROM orders WHERE access_changes > 0",
    "entitlements": _count("entitlements", "session_id", "revoked_at IS NULL"),
    "documents": _count("documents", "document_id"),
    "completed documents": _count("documents", "document_id", "status = 'completed'"),
    "failed documents": _count("documents", "document_id", f"status = 'failed' AND error = '{ERROR}'"),
    "otherwise failed documents": _count("documents", "document_id", f"status = 'failed' AND error <> '{ERROR}'"),
    "effects": _count("effects", "job_id"),
}
FILES = "SELECT document_id, stored_as, sha256, size FROM documents WHERE status = 'completed'"
# Their names are those of jobs and rows, or of events that localstripe made, so they cannot be compared.
UNCHECKED = ("effects", "writes of ", "past due by this event")


@dataclass(slots=True)
class Verdict:
    """Each finding is a line of text; a good run has none."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def find(connection: Connection) -> dict[str, Counter[str]]:
    """How often each effect is in the database, by table and name."""
    return {
        what: Counter({str(name): int(times) for name, times in connection.execute(text(query))})
        for what, query in QUERIES.items()
    }


def whole_files(connection: Connection, folder: Path, served: Callable[[str], bytes]) -> dict[str, Counter[str]]:
    """The completed documents whose file in `folder` is, byte for byte, what was `served`, and as its row describes."""
    whole: Counter[str] = Counter()
    for name, stored_as, sha256, size in connection.execute(text(FILES)):
        content, file = served(name), folder / stored_as
        as_described = (sha256, size) == (hashlib.sha256(content).hexdigest(), len(content))
        whole[name] += as_described and file.is_file() and file.read_bytes() == content
    return {"whole files": +whole}


def unnamed_files(connection: Connection, folder: Path) -> dict[str, Counter[str]]:
    """Files in the document store that no row names."""
    named = set(connection.execute(text("SELECT stored_as FROM documents")).scalars())
    return {
        "unnamed files": Counter(path.name for path in folder.glob("*") if path.is_file() and path.name not in named)
    }


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as the demo's mail server stored it. `event` is the id of the event that led to it."""

    kind: str
    event: str
    to: str
    subject: str


def read_mails(folder: Path) -> list[Mail]:
    """All mails in a Maildir. The idempotency key is "<source>:<event>:notify.<kind>", and maybe a number."""
    mails = [email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in folder.glob("new/*")]
    keys = [str(mail["X-Idempotency-Key"]) for mail in mails]
    return [
        Mail(key.partition(":notify.")[2].partition(".")[0], key.split(":")[1], str(mail["To"]), str(mail["Subject"]))
        for key, mail in zip(keys, mails, strict=True)
    ]


def count_mails(mails: Iterable[Mail]) -> dict[str, Counter[str]]:
    """By kind and address, those to customers."""
    found: dict[str, Counter[str]] = {}
    for mail in mails:
        if not mail.to.startswith("admin@"):
            found.setdefault(f"{mail.kind} mails", Counter())[mail.to] += 1
    return found


def judge(events: Mapping[str, ShopEvent], acknowledged: Set[str], found: Found) -> Verdict:
    """`events` by id, those of them that were answered 2xx, and what was found of their effects."""
    lost = [
        f"{event_id}: {what} is missing"
        for event_id in sorted(acknowledged)
        for what, name in _names(events[event_id], EXPECTED)
        if name not in found.get(what, ())
    ]
    doubled = [
        f"{name}: {what} is there {times} times"
        for what, rows in found.items()
        for name, times in sorted(rows.items())
        if times > 1
    ]
    return Verdict(lost, doubled, list(_surplus(events, found)))


def _surplus(events: Mapping[str, ShopEvent], found: Found) -> Iterator[str]:
    known = {
        effect for event in events.values() for effects in (EXPECTED, ALLOWED) for effect in _names(event, effects)
    }
    for what, rows in found.items():
        if not what.startswith(UNCHECKED):
            yield from (
                f"{name}: {what} is there and nothing asked for it"
                for name in sorted(rows)
                if (what, name) not in known
            )


def _names(event: ShopEvent, effects: Mapping[str, Effects]) -> Iterator[tuple[str, str]]:
    for what, by in effects.get(event.kind, ()):
        yield what, str(getattr(event, by))


def wrong_answers(answers: Iterable[Answer]) -> Iterator[str]:
    """Every delivery must be acknowledged, and every one with a flaw answered 400."""
    for answer in answers:
        delivery = answer.delivery
        if delivery.flaw and answer.status != 400:
            yield f"{delivery.event_id}: {delivery.flaw}, must be answered 400, was {answer.status}"
        elif not delivery.flaw and not answer.acknowledged:
            yield f"{delivery.event_id}: never acknowledged, last answer {answer.status}"


def wrong_counts(stats: Mapping[str, int], **expected: int) -> Iterator[str]:
    """Job counts of the record that differ from the number that is expected by design."""
    for name, count in expected.items():
        if stats.get(name, -1) != count:
            yield f"{stats.get(name, -1)} jobs are {name}, {count} of them by design"


def lost_records(
    events: Mapping[str, ShopEvent], acknowledged: Set[str], recorded: Mapping[tuple[str, str], dict[str, Any]]
) -> Iterator[str]:
    """Acknowledged events of Stripe's that are not in the record, or there in the wrong state."""
    for event_id in sorted(acknowledged):
        if events[event_id].id == events[event_id].subject:  # a document
            continue
        state = recorded.get(("stripe", event_id), {}).get("state")
        if state is None:
            yield f"{event_id}: acknowledged and not in the record"
        elif events[event_id].kind == "unhandled" and state != "unhandled":
            yield f"{event_id}: must be recorded as unhandled, is {state}"
