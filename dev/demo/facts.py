"""What is there when everything is over: read from the database file, the mail folder and the documents themselves.

Plain SQL and plain files on purpose: nothing here goes through the code that is being judged.
"""

from __future__ import annotations

import email
import email.policy
import hashlib
import itertools
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAST_DUE = (
    "SELECT invoices.seen_event FROM invoices JOIN subscriptions ON subscriptions.id = invoices.subscription"
    " WHERE subscriptions.status = 'past_due'"
)


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A row of `documents`, and the digest of the file that it names."""

    document_id: str
    status: str
    stored_as: str | None
    file_sha256: str | None
    starts: int = 1
    seconds: float = 0.0  # from the request to the end
    course: tuple[str, ...] = ()  # its time line


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of the world after the demo."""

    failures: dict[str, str]  # payment_failures: event id -> invoice
    past_due: set[str]  # the newest events of the invoices of subscriptions that are past due
    retries: Counter[str]  # planned retries per invoice
    orders: dict[str, str]  # session -> state
    entitlements: Counter[str]  # per session
    documents: dict[str, StoredDocument]  # by our id
    effects: int
    mail_keys: Counter[str]  # the idempotency keys of the mails
    mailed: Counter[str]  # mails per address
    files: set[str]


def read_facts(folder: Path) -> Facts:
    with closing(open_database(folder)) as db:
        mails = [mail_headers(path) for path in (folder / "mail" / "new").glob("*")]
        documents = folder / "documents"
        return Facts(
            failures=dict(db.execute("SELECT event_id, invoice FROM payment_failures")),
            past_due={event for (event,) in db.execute(PAST_DUE)},
            retries=Counter(invoice for (invoice,) in db.execute("SELECT invoice FROM payment_retries")),
            orders=dict(db.execute("SELECT session_id, state FROM orders")),
            entitlements=Counter(session for (session,) in db.execute("SELECT session_id FROM entitlements")),
            documents={row[0]: _document(db, documents, row) for row in db.execute(DOCUMENTS)},
            effects=_number(db, "SELECT count(*) FROM effects"),
            mail_keys=Counter(key for key, _, _ in mails),
            mailed=Counter(to for _, to, _ in mails),
            files={path.name for path in documents.glob("*") if path.is_file()},
        )


@dataclass(frozen=True, slots=True)
class Midway:
    """What can be told while it still runs."""

    documents: int  # completed or failed
    retries: int  # payments to be tried again later, by design
    invoices: set[str]  # known to have failed


def look_midway(folder: Path) -> Midway:
    with closing(open_database(folder)) as db:
        return Midway(
            documents=_number(db, "SELECT count(*) FROM documents WHERE status IN ('completed', 'failed')"),
            retries=_number(db, "SELECT count(*) FROM payment_retries WHERE state = 'planned'"),
            invoices={invoice for (invoice,) in db.execute("SELECT invoice FROM payment_failures")},
        )


def open_database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{folder / 'holdfast.db'}?mode=ro", uri=True, timeout=10)


DOCUMENTS = (
    "SELECT id, document_id, status, stored_as, start, (julianday(updated_at) - julianday(created_at)) * 86400"
    " FROM documents ORDER BY created_at"
)


def _document(db: sqlite3.Connection, folder: Path, row: tuple[Any, ...]) -> StoredDocument:
    id_, document_id, status, stored_as, starts, seconds = row
    path = folder / stored_as if stored_as else None
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path and path.exists() else None
    steps = db.execute("SELECT status FROM document_steps WHERE document = ? ORDER BY id", (id_,))
    course = tuple(step for step, _ in itertools.groupby(step for (step,) in steps))
    return StoredDocument(document_id, status, stored_as, digest, starts, seconds, course)


def _number(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])


def mail_headers(path: Path) -> tuple[str, str, str]:
    """Its idempotency key, whom it is to, and its subject."""
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    return str(mail["X-Idempotency-Key"]), str(mail["To"]), str(mail["Subject"])
