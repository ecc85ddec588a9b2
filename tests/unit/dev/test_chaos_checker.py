"""The chaos run's checker names each tampered row, file or count of a simulator, and nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from dev.harness.checker import Verdict, find, judge, whole_files
from dev.harness.traffic import ShopEvent

EVENTS = {
    event.id: event
    for event in (
        ShopEvent("evt_1", "failed, pays at 1", "in_1", "1@example.test"),
        ShopEvent("evt_2", "paid", "cs_2", "2@example.test"),
        ShopEvent("evt_3", "unpaid", "cs_3", "3@example.test"),
        ShopEvent("evt_4", "unhandled", "cus_4", "4@example.test"),
        ShopEvent("evt_5", "failed, pays at 1", "in_5", "5@example.test"),  # never acknowledged
        ShopEvent("evt_6", "failed, pays at 2", "in_6", "6@example.test"),
        ShopEvent("evt_7", "failed, never pays", "in_7", "7@example.test"),
        ShopEvent("file-8", "document", "file-8", "8@example.test"),
        ShopEvent("file-9", "broken document", "file-9", "9@example.test"),
    )
}
ACKNOWLEDGED = EVENTS.keys() - {"evt_5"}
SEEN_BY_SIMULATORS = {
    "payment_failed mails": {"1@example.test": 1, "6@example.test": 1, "7@example.test": 1},
    "payment_recovered mails": {"1@example.test": 1, "6@example.test": 1},
    "subscription_suspended mails": {"7@example.test": 1},
    "receipt mails": {"2@example.test": 1},
    "document_ready mails": {"8@example.test": 1},
    "document_not_ready mails": {"9@example.test": 1},
    "payments": {"in_1": 1, "in_6": 1},
    "try 1 to collect": {"in_1": 1, "in_6": 1, "in_7": 1},
    "try 2 to collect": {"in_6": 1, "in_7": 1},
    "tasks at the document service": {"file-8": 1, "file-9": 1},
}
Tampering = str | dict[str, dict[str, int]]  # SQL, or what the simulators saw instead
SHA256_OF_SERVED = "8fe88bf015b53b37b5fa84dc726cd93aacca97f601185be11f5fb74fa3d77802"
NOTICE = "INSERT INTO notifications (id, kind, email, params) VALUES"
# As the product's tables, without the constraints that would refuse what is tried here.
WHOLE = f"""
CREATE TABLE payment_failures (event_id, invoice, subscription);
CREATE TABLE payment_retries (invoice, number, state);
CREATE TABLE subscriptions (id, status);
CREATE TABLE invoices (id, subscription, seen_event);
CREATE TABLE notifications (id, kind, email, params, state DEFAULT 'sent');
CREATE TABLE orders (session_id, state);
CREATE TABLE entitlements (source, revoked_at, changes);
CREATE TABLE documents (document_id, status, error, stored_as, sha256, size);
CREATE TABLE effects (job_id);
INSERT INTO payment_failures VALUES ('evt_1', 'in_1', 's1'), ('evt_6', 'in_6', 's6'), ('evt_7', 'in_7', 's7');
INSERT INTO payment_retries VALUES ('in_1', 1, 'paid'), ('in_6', 1, 'declined'), ('in_6', 2, 'paid');
INSERT INTO payment_retries VALUES ('in_7', 1, 'declined'), ('in_7', 2, 'declined');
INSERT INTO subscriptions VALUES ('s1', 'active'), ('s6', 'active'), ('s7', 'suspended');
INSERT INTO notifications (id, kind, email, params) VALUES ('n1', 'payment_failed', '1@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('n6', 'payment_failed', '6@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('n7', 'payment_failed', '7@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('t1', 'payment_recovered', '1@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('t6', 'payment_recovered', '6@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('s7', 'subscription_suspended', '7@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('g7', 'payment_given_up', NULL, '{{"invoice": "in_7"}}');
INSERT INTO orders VALUES ('cs_2', 'fulfilled'), ('cs_3', 'awaiting_payment');
INSERT INTO entitlements VALUES ('cs_2', NULL, 1);
INSERT INTO notifications (id, kind, email, params) VALUES ('n2', 'receipt', '2@example.test', '{{}}');
INSERT INTO documents VALUES ('file-8', 'completed', NULL, 'file-8.pdf', '{SHA256_OF_SERVED}', 6);
INSERT INTO documents VALUES ('file-9', 'failed', 'page 3 cannot be read', NULL, NULL, NULL);
INSERT INTO notifications (id, kind, email, params) VALUES ('n8', 'document_ready', '8@example.test', '{{}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('n9', 'document_failed', NULL, '{{"document": "file-9"}}');
INSERT INTO notifications (id, kind, email, params) VALUES ('n10', 'document_not_ready', '9@example.test', '{{}}');
INSERT INTO effects VALUES ('stripe:evt_1:payments.payment_failed'), ('stripe:evt_2:fulfilment.checkout_completed')
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The document store, with the one file that was downloaded."""
    (tmp_path / "file-8.pdf").write_bytes(b"served")
    return tmp_path


def verdict(store: Path, tampering: Tampering = "") -> Verdict:
    sql, seen = (tampering, {}) if isinstance(tampering, str) else ("", tampering)
    with create_engine("sqlite://").connect() as connection:
        _execute(connection, WHOLE)
        _execute(connection, sql)
        found = find(connection) | whole_files(connection, store, lambda _: b"served")
    return judge(EVENTS, ACKNOWLEDGED, found | {what: Counter(n) for what, n in (SEEN_BY_SIMULATORS | seen).items()})


def _execute(connection: Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.exec_driver_sql(statement)


def test_whole_rows_and_files_are_neither_lost_nor_doubled(store: Path) -> None:
    assert verdict(store) == Verdict()


@pytest.mark.parametrize(
    ("tampering", "lost"),
    [
        (
            "DELETE FROM payment_failures WHERE event_id = 'evt_1'",
            ["evt_1: payment_failures", "evt_1: active subscriptions"],
        ),
        ("DELETE FROM payment_retries WHERE invoice = 'in_1'", ["evt_1: paid retries"]),
        ("DELETE FROM payment_retries WHERE invoice = 'in_6' AND number = 1", ["evt_6: declined retry 1"]),
        ("DELETE FROM payment_retries WHERE invoice = 'in_7' AND number = 2", ["evt_7: declined retry 2"]),
        ("UPDATE subscriptions SET status = 'past_due' WHERE id = 's7'", ["evt_7: suspended subscriptions"]),
        ("UPDATE subscriptions SET status = 'past_due' WHERE id = 's1'", ["evt_1: active subscriptions"]),
        ("DELETE FROM notifications WHERE id = 't1'", ["evt_1: payment_recovered notices"]),
        ("DELETE FROM notifications WHERE id = 's7'", ["evt_7: subscription_suspended notices"]),
        ("DELETE FROM notifications WHERE id = 'g7'", ["evt_7: payment_given_up notices"]),
        ("DELETE FROM orders WHERE session_id = 'cs_2'", ["evt_2: fulfilled orders"]),
        ("UPDATE entitlements SET revoked_at = 'now'", ["evt_2: entitlements"]),
        ("DELETE FROM entitlements", ["evt_2: entitlements", "evt_2: changes of access"]),
        ("DELETE FROM notifications WHERE id = 'n2'", ["evt_2: receipt notices"]),
        ("DELETE FROM orders WHERE session_id = 'cs_3'", ["evt_3: awaiting_payment orders"]),
        ("DELETE FROM documents WHERE document_id = 'file-9'", ["file-9: documents", "file-9: failed documents"]),
        ("UPDATE documents SET error = 'gone' WHERE status = 'failed'", ["file-9: failed documents"]),
        ("DELETE FROM notifications WHERE id = 'n8'", ["file-8: document_ready notices"]),
        ("DELETE FROM notifications WHERE id = 'n9'", ["file-9: document_failed notices"]),
        (
            "UPDATE documents SET status = 'downloading' WHERE document_id = 'file-8'",
            ["file-8: completed documents", "file-8: whole files"],
        ),
        ("UPDATE documents SET sha256 = 'of something else'", ["file-8: whole files"]),
        ("UPDATE documents SET size = 5", ["file-8: whole files"]),
        ("UPDATE documents SET stored_as = 'nowhere.pdf'", ["file-8: whole files"]),
        ({"payments": {"in_1": 1}}, ["evt_6: payments"]),
        ({"try 1 to collect": {"in_1": 1, "in_6": 1}}, ["evt_7: try 1 to collect"]),
        ({"try 2 to collect": {"in_7": 1}}, ["evt_6: try 2 to collect"]),
        ({"tasks at the document service": {"file-9": 1}}, ["file-8: tasks at the document service"]),
        ({"payment_recovered mails": {"6@example.test": 1}}, ["evt_1: payment_recovered mails"]),
    ],
)
def test_a_missing_effect_of_an_acknowledged_event_is_lost(store: Path, tampering: Tampering, lost: list[str]) -> None:
    found = verdict(store, tampering)
    assert (found.lost, found.doubled) == ([f"{effect} is missing" for effect in lost], [])


@pytest.mark.parametrize("content", [b"", b"serve", b"Served", b"served twice"])
def test_a_file_that_is_not_whole_is_lost(store: Path, content: bytes) -> None:
    (store / "file-8.pdf").write_bytes(content)
    assert verdict(store) == Verdict(["file-8: whole files is missing"])


@pytest.mark.parametrize(
    ("tampering", "doubled"),
    [
        ("INSERT INTO payment_failures VALUES ('evt_1', 'in_1', 's1')", "evt_1: payment_failures"),
        (
            NOTICE + " ('n3', 'payment_failed', '1@example.test', '{}')",
            "1@example.test: payment_failed notices",
        ),
        ("INSERT INTO payment_retries VALUES ('in_6', 3, 'paid')", "in_6: paid retries"),
        (
            NOTICE + """ ('g8', 'payment_given_up', NULL, '{"invoice": "in_7"}')""",
            "in_7: payment_given_up notices",
        ),
        ("UPDATE entitlements SET changes = 2 WHERE source = 'cs_2'", "cs_2: changes of access"),
        ("INSERT INTO orders VALUES ('cs_2', 'fulfilled')", "cs_2: fulfilled orders"),
        ("INSERT INTO entitlements VALUES ('cs_2', NULL, 0)", "cs_2: entitlements"),
        (
            NOTICE + " ('n3', 'receipt', '2@example.test', '{}')",
            "2@example.test: receipt notices",
        ),
        ("INSERT INTO documents VALUES ('file-9', 'submitting', NULL, NULL, NULL, NULL)", "file-9: documents"),
        (
            NOTICE + """ ('n0', 'document_failed', NULL, '{"document": "file-9"}')""",
            "file-9: document_failed notices",
        ),
        (
            "INSERT INTO effects VALUES ('stripe:evt_1:payments.payment_failed')",
            "stripe:evt_1:payments.payment_failed: effects",
        ),
        (  # it may have been recorded before its acknowledgement got lost; once is right, twice is not
            "INSERT INTO payment_failures VALUES ('evt_5', 'in_5', 's5'), ('evt_5', 'in_5', 's5')",
            "evt_5: payment_failures",
        ),
        ({"payments": {"in_1": 1, "in_6": 2}}, "in_6: payments"),
        # A second task under another Idempotency-Key.
        ({"tasks at the document service": {"file-8": 2, "file-9": 1}}, "file-8: tasks at the document service"),
        ({"receipt mails": {"2@example.test": 2}}, "2@example.test: receipt mails"),  # sent again without an excuse
    ],
)
def test_an_effect_that_is_there_twice_is_doubled(store: Path, tampering: Tampering, doubled: str) -> None:
    found = verdict(store, tampering)
    assert f"{doubled} is there 2 times" in found.doubled
    assert not found.lost


@pytest.mark.parametrize(
    ("tampering", "wrong"),
    [
        ("INSERT INTO payment_retries VALUES ('in_1', 2, 'declined')", "in_1: declined retry 2"),
        ("INSERT INTO payment_retries VALUES ('in_7', 3, 'declined')", "in_7: declined retry 3"),
        ("INSERT INTO payment_retries VALUES ('in_1', 2, 'planned')", "in_1: planned retry 2"),
        ("INSERT INTO payment_retries VALUES ('in_1', 2, 'stopped')", "in_1: stopped retry 2"),
        ("INSERT INTO subscriptions VALUES ('s1', 'suspended')", "in_1: suspended subscriptions"),
        ("INSERT INTO subscriptions VALUES ('s7', 'active')", "in_7: active subscriptions"),
        ("INSERT INTO orders VALUES ('cs_3', 'fulfilled')", "cs_3: fulfilled orders"),
        ("INSERT INTO entitlements VALUES ('cs_3', NULL, 0)", "cs_3: entitlements"),
        ("INSERT INTO documents VALUES ('who', 'submitting', NULL, NULL, NULL, NULL)", "who: documents"),
        (
            NOTICE + " ('n3', 'receipt', '3@example.test', '{}')",
            "3@example.test: receipt notices",
        ),
        ("UPDATE notifications SET state = 'owed' WHERE id = 'n2'", "n2: owed notices"),
        # in_1 was collected at its first retry: nothing more was to be tried.
        ({"try 2 to collect": {"in_1": 1, "in_6": 1, "in_7": 1}}, "in_1: try 2 to collect"),
        ({"try 3 to collect": {"in_7": 1}}, "in_7: try 3 to collect"),
        ({"receipt mails": {"2@example.test": 1, "3@example.test": 1}}, "3@example.test: receipt mails"),
    ],
)
def test_an_effect_that_no_event_requires_is_wrong(store: Path, tampering: Tampering, wrong: str) -> None:
    assert verdict(store, tampering) == Verdict(wrong=[f"{wrong} is there and nothing asked for it"])


def test_an_effect_of_an_event_that_was_never_acknowledged_is_no_fault(store: Path) -> None:
    assert verdict(store, "INSERT INTO payment_failures VALUES ('evt_5', 'in_5', 's5')") == Verdict()
