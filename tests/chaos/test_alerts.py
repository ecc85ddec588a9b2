"""Alerts of real workers and a real receiver, with a real mail server: each is sent once even if a process dies."""

from __future__ import annotations

import time

import pytest

from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.client import connect
from inbox.event import Event
from inbox.job import Lease, NewJob
from inbox.retry import DeadLetter
from inbox.store import Store
from tests.support.peers import Mailbox
from tests.support.stack import Stack


def subjects(mailbox: Mailbox) -> list[str]:
    return [str(mail["Subject"]) for _, mail in mailbox.mails]


@pytest.mark.slow
@pytest.mark.parametrize("point", ["before the alerts are saved", "after the alerts are saved"])
def test_a_dead_letter_is_announced_once_and_resolved_once_if_a_worker_dies_while_saving_the_alerts(
    stack: Stack, valkey: Valkey, mailbox: Mailbox, point: str
) -> None:
    stack.environment |= {
        "ALERT_NOTIFY_URLS": f"{mailbox.url}&to=pager@example.com",
        "HOLDFAST_TEST_QUICK_ALERTS": "1",
        "LEASE_SECONDS": "60",  # otherwise a slow machine may stop a mail that is being sent, and it is sent again
        "JOB_TIME_LIMIT_SECONDS": "50",
    }
    store = Store(connect(valkey.url, timeout_seconds=5))
    store.record(Event("stripe", "evt_1", "x", b"{}"), [NewJob("j1", "tests.support.handlers.plain", "unserved")])
    lease = store.lease("j1", "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "never", DeadLetter("never"))
    queues = "payments,notifications"
    doomed = [stack.worker(queues=queues, ready=False, HOLDFAST_TEST_DIE=point) for _ in range(2)]
    wait_until(lambda: sum(not one.alive() for one in doomed) == 1, seconds=120, what="one of them to die")
    wait_until(lambda: len(mailbox.mails) == 1, seconds=60, what=f"the message; {stack.log_tails()}")
    time.sleep(3)  # several checks
    assert subjects(mailbox) == ["Holdfast: 1 dead letter waits for a person"]
    assert store.discard("j1", "ada", "a test") == ""
    wait_until(lambda: len(mailbox.mails) == 2, seconds=60, what="the message that it is resolved")
    time.sleep(3)
    assert subjects(mailbox)[1:] == ["Holdfast: resolved: 1 dead letter waits for a person"]
    assert queries.stats(store)["unfinished"] == 0


@pytest.mark.slow
def test_a_receiver_whose_store_is_down_sends_one_alert(stack: Stack, valkey: Valkey, mailbox: Mailbox) -> None:
    stack.receiver(ALERT_NOTIFY_URLS=f"{mailbox.url}&to=pager@example.com")
    valkey.kill()
    wait_until(lambda: bool(mailbox.mails), seconds=90, what="the message")
    time.sleep(12)  # one more check
    (subject,) = subjects(mailbox)
    assert subject.startswith("Holdfast: the store is not available")
