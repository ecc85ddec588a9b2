"""The chaos run's checker: a tampered row is named, and whole rows are not."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import Connection, create_engine, text

from dev.chaos.checker import Verdict, find, judge
from dev.chaos.traffic import Sent

EVENTS = {
    event.id: event
    for event in (
        Sent("evt_1", "failed", "in_1", "failed-1@example.test"),
        Sent("evt_2", "paid", "cs_2", "paid-2@example.test"),
        Sent("evt_3", "unpaid", "cs_3", "unpaid-3@example.test"),
        Sent("evt_4", "unhandled", "cus_4", "unhandled-4@example.test"),
        Sent("evt_5", "failed", "in_5", "failed-5@example.test"),  # never acknowledged
    )
}
ACKNOWLEDGED = {"evt_1", "evt_2", "evt_3", "evt_4"}
MAILS = {"failed-1@example.test": 1, "paid-2@example.test": 1}
# As the product's tables, without the constraints that would refuse what is tried here.
WHOLE = """
CREATE TABLE payment_failures (event_id);
CREATE TABLE notifications (id, kind, email);
CREATE TABLE orders (session_id, state);
CREATE TABLE entitlements (session_id);
CREATE TABLE effects (job_id);
INSERT INTO payment_failures VALUES ('evt_1');
INSERT INTO notifications VALUES ('n1', 'payment_failed', 'failed-1@example.test');
INSERT INTO orders VALUES ('cs_2', 'fulfilled'), ('cs_3', 'awaiting_payment');
INSERT INTO entitlements VALUES ('cs_2');
INSERT INTO notifications VALUES ('n2', 'receipt', 'paid-2@example.test');
INSERT INTO effects VALUES ('stripe:evt_1:payments.payment_failed'), ('stripe:evt_2:fulfilment.checkout_completed')
"""


def verdict(tampering: str = "", mails: dict[str, int] | None = None) -> Verdict:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        _execute(connection, WHOLE)
        _execute(connection, tampering)
        found = find(connection)
    return judge(EVENTS, ACKNOWLEDGED, found | {"mails": Counter(MAILS if mails is None else mails)})


def _execute(connection: Connection, statements: str) -> None:
    for statement in filter(str.strip, statements.split(";")):
        connection.execute(text(statement))


def test_whole_rows_are_neither_lost_nor_doubled() -> None:
    assert verdict() == Verdict((), (), 0)


@pytest.mark.parametrize(
    ("tampering", "lost"),
    [
        ("DELETE FROM payment_failures", "evt_1: payment_failures is missing"),
        ("DELETE FROM notifications WHERE id = 'n1'", "evt_1: payment_failed notices is missing"),
        ("DELETE FROM orders WHERE session_id = 'cs_2'", "evt_2: fulfilled orders is missing"),
        ("UPDATE orders SET state = 'awaiting_payment'", "evt_2: fulfilled orders is missing"),
        ("DELETE FROM entitlements", "evt_2: entitlements is missing"),
        ("DELETE FROM notifications WHERE id = 'n2'", "evt_2: receipts is missing"),
        ("UPDATE orders SET state = 'fulfilled'", "evt_3: waiting orders is missing"),
    ],
)
def test_a_missing_effect_of_an_acknowledged_event_is_lost(tampering: str, lost: str) -> None:
    assert verdict(tampering) == Verdict((lost,), (), 0)


@pytest.mark.parametrize(
    ("tampering", "doubled"),
    [
        ("INSERT INTO payment_failures VALUES ('evt_1')", "evt_1: payment_failures is there 2 times"),
        (
            "INSERT INTO notifications VALUES ('n3', 'payment_failed', 'failed-1@example.test')",
            "failed-1@example.test: payment_failed notices is there 2 times",
        ),
        ("INSERT INTO orders VALUES ('cs_2', 'fulfilled')", "cs_2: fulfilled orders is there 2 times"),
        ("INSERT INTO entitlements VALUES ('cs_2'), ('cs_2')", "cs_2: entitlements is there 3 times"),
        (
            "INSERT INTO notifications VALUES ('n3', 'receipt', 'paid-2@example.test')",
            "paid-2@example.test: receipts is there 2 times",
        ),
        (
            "INSERT INTO effects VALUES ('stripe:evt_1:payments.payment_failed')",
            "stripe:evt_1:payments.payment_failed: effects is there 2 times",
        ),
        (  # it may have been recorded before its acknowledgement got lost; once is right, twice is not
            "INSERT INTO payment_failures VALUES ('evt_5'), ('evt_5')",
            "evt_5: payment_failures is there 2 times",
        ),
    ],
)
def test_an_effect_that_is_there_twice_is_doubled(tampering: str, doubled: str) -> None:
    assert verdict(tampering) == Verdict((), (doubled,), 0)


def test_an_effect_of_an_event_that_was_never_acknowledged_is_no_fault() -> None:
    assert verdict("INSERT INTO payment_failures VALUES ('evt_5')") == Verdict((), (), 0)


def test_a_mail_that_was_not_sent_is_lost() -> None:
    assert verdict(mails={"paid-2@example.test": 1}) == Verdict(("evt_1: mails is missing",), (), 0)


def test_a_mail_that_was_sent_again_is_counted_but_no_double() -> None:
    assert verdict(mails=MAILS | {"paid-2@example.test": 3}) == Verdict((), (), 2)
