"""Alerts on a real record: how they are saved, what they are computed from, and which ones the receiver sends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli import doctor_checks
from dev.stack.servers import Valkey, wait_until
from inbox import alert_state, queries, worker_registry
from inbox.alert_rules import AlertDigest, AlertInputs, AlertState
from inbox.client import connect
from inbox.event import Event, NewEvent
from inbox.job import Doorbell, Lease, NewJob
from inbox.retry import DeadLetter
from inbox.store import Store
from settings import load
from tasks.notifications.alerts import send_alert
from tasks.notifications.notify import send
from tasks.routes import QUEUES, jobs_for
from tests.conftest import Clock
from tests.support.business import Business
from tests.support.peers import Mailbox
from web.ops.watchdog import Watchdog
from web.receiver.counters import rejection_counts

MINUTE = 60_000
IT = {"dead": AlertState("1 dead letter waits for a person", 1, 1)}


def alert(name: str) -> NewEvent:
    return NewEvent(Event("holdfast", name, "alert.due", b'{"new": ["it"]}'), jobs_for("holdfast", name, "alert.due"))


def test_of_two_processes_that_check_at_once_one_announces_the_alert(store: Store) -> None:
    before = alert_state.load_alerts(store)
    bells = alert_state.save_alerts(store, before, IT, alert("alert:1"))
    assert bells == [Doorbell("holdfast:alert:1:alerts.tell", "tasks.alerts.tell", "notifications")]
    assert alert_state.save_alerts(store, before, {}, alert("alert:2")) == "stale"
    assert queries.find_event(store, "holdfast", "alert:2") is None
    assert alert_state.load_alerts(store).alerts == IT
    assert alert_state.save_alerts(store, alert_state.load_alerts(store), {}, None) == []
    assert queries.stats(store)["unfinished"] == 1


def test_an_alert_fires_when_events_are_rejected_for_lack_of_memory(real_store: Store) -> None:
    real_store.client.config_set("maxmemory", "1mb")
    try:
        assert isinstance(
            alert_state.save_alerts(real_store, alert_state.load_alerts(real_store), IT, alert("alert:1")), list
        )
        lease = real_store.lease("holdfast:alert:1:alerts.tell", "w", 60)
        assert isinstance(lease, Lease)
        real_store.finish(lease)
    finally:
        real_store.client.config_set("maxmemory", "0")


def test_the_measurements_come_from_the_record(store: Store, clock: Clock) -> None:
    began = clock()
    store.record(Event("stripe", "e1", "x", b"{}"), [NewJob("j1", "t", "payments")], "old")
    clock.forward(60)
    store.record(Event("stripe", "e2", "x", b"{}"), [NewJob("j2", "t", "payments")], "new")
    lease = store.lease("j2", "w", 60)
    assert isinstance(lease, Lease)
    store.fail(lease, "never", DeadLetter("never"))
    store.sweep(1, {})
    store.record(Event("stripe", "e3", "x", b"{}"), [], counted="missed")
    store.count(rejection_counts("crm", "signature"))
    alert_state.record_disk(store, "host-1", 7, clock())
    alert_state.record_disk(store, "host-2", 8, clock() - 11 * MINUTE)
    seen = alert_state.measure(store, ("payments", "documents"), clock())
    assert seen == AlertInputs(
        now=clock(),
        dead=1,
        missed=1,
        unfinished_since={"payments": began},
        last={"stripe": began + MINUTE},
        unproven={"crm": 1},
        memory=seen.memory,
        disks={"host-1": 7},
    )


def test_all_alerts_of_one_check_are_one_mail_to_the_alert_address(business: Business, mailbox: Mailbox) -> None:
    business.settings["ADMIN_NOTIFY_URLS"] = f"{mailbox.url}&to=admin@example.com"
    business.settings["ALERT_NOTIFY_URLS"] = f"{mailbox.url}&to=pager@example.com"
    digest = {"new": ["it is full"], "again": [], "over": ["one had died"]}
    (follow_up,) = business.run(send_alert, digest, source="holdfast")
    business.follow(send, follow_up)
    ((recipients, mail),) = mailbox.mails
    assert (recipients, mail["Subject"]) == (["pager@example.com"], "Holdfast: it is full, and 1 more")
    text = mail.get_body(("plain",))
    assert text is not None
    assert "New:\n- it is full\n\nResolved:\n- one had died" in text.get_content().replace("\r", "")


@pytest.mark.parametrize(
    ("admin", "alert", "expected"),
    [("", "", ()), ("json://a", "", ("json://a",)), ("json://a", "json://b", ("json://b",)), ("json://a", "off", ())],
)
def test_the_alert_addresses_default_to_the_administrators(admin: str, alert: str, expected: tuple[str, ...]) -> None:
    assert load({"ADMIN_NOTIFY_URLS": admin, "ALERT_NOTIFY_URLS": alert}).alert_urls == expected


@pytest.fixture
def watchdog(valkey: Valkey, mailbox: Mailbox, tmp_path: Path) -> Iterator[Watchdog]:
    settings = load({"ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com"})
    yield Watchdog(settings, Store(connect(valkey.url, timeout_seconds=5)), 0)


def test_the_receiver_sends_one_alert_when_the_store_is_down_and_one_when_it_is_back(
    watchdog: Watchdog, valkey: Valkey, mailbox: Mailbox
) -> None:
    valkey.kill()
    digests = [watchdog.check(n * 10_000) for n in range(20)]
    assert [n for n, one in enumerate(digests) if one] == [3], "not for a restart, and not again"
    valkey.start()
    Store(connect(valkey.url, timeout_seconds=5)).sweep(1, {})
    over = [watchdog.check(200_000 + n * 10_000) for n in range(40)]
    assert sum(map(bool, over)) == 1
    first, last = (mail["Subject"] for _, mail in mailbox.mails)
    assert first.startswith("Holdfast: the store is not available")
    assert last.startswith("Holdfast: resolved: the store is not available")


def test_the_receiver_sends_an_alert_when_jobs_wait_in_a_queue_without_a_worker(
    watchdog: Watchdog, real_store: Store, mailbox: Mailbox
) -> None:
    real_store.sweep(1, {})
    real_store.record(Event("stripe", "evt_1", "x", b"{}"), [NewJob("j1", "t", "documents")])
    worker_registry.announce(real_store, "payments@host", "host/1", ["payments"], QUEUES)
    assert not any(watchdog.check(n * 10_000) for n in range(6))
    longer_ago = real_store.now_ms() - worker_registry.GONE_MS - 1000
    for queue in ("documents", "downloads"):
        real_store.client.hset("{holdfast}:consumed", queue, longer_ago)
    digests = [watchdog.check(100_000 + n * 10_000) for n in range(6)]
    assert [one.new for one in digests if one] == [("no worker consumes documents, and its jobs wait",)]
    assert len(mailbox.mails) == 1


def test_the_receiver_sends_an_alert_when_the_store_may_lose_events(
    watchdog: Watchdog, real_store: Store, mailbox: Mailbox
) -> None:
    real_store.sweep(1, {})
    real_store.client.config_set("appendonly", "no")
    try:
        digests = [watchdog.check(n * 10_000) for n in range(6)]
    finally:
        real_store.client.config_set("appendonly", "yes")
    risk = "the store may lose acknowledged events: for DURABILITY=always, appendonly must be yes (it is no)"
    assert [one.new for one in digests if one] == [(risk,)]
    assert [mail["Subject"] for _, mail in mailbox.mails] == [f"Holdfast: {risk}"]


def test_the_receiver_sends_an_alert_when_the_file_of_the_store_cannot_be_rewritten(
    mailbox: Mailbox, tmp_path: Path
) -> None:
    """As when memory is too short for it: the kernel kills the child of the server that rewrites the file."""
    server = Valkey(tmp_path / "store").start()
    try:
        store = Store(connect(server.url, timeout_seconds=5))
        store.sweep(1, {})
        store.client.config_set("rdb-key-save-delay", 1_000_000)  # microseconds: so that the child is still there
        store.client.bgrewriteaof()
        assert server.process is not None
        (child,) = psutil.Process(server.process.pid).children()
        child.kill()
        wait_until(lambda: bool(queries.failed_disk_writes(store)), seconds=30, what="the server to notice")
        settings = load({"ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com"})
        watchdog = Watchdog(settings, store, 0)
        digests = [watchdog.check(n * 10_000) for n in range(6)]
        message = "the store cannot rewrite its append-only file, which grows until its disk is full"
        assert [one.new for one in digests if one] == [(message,)]
        assert doctor_checks._disk_writes(store).found == "aof_last_bgrewrite_status is err"
    finally:
        server.kill()


def test_the_receiver_sends_an_alert_when_no_worker_runs(
    watchdog: Watchdog, real_store: Store, mailbox: Mailbox
) -> None:
    digests = [watchdog.check(n * 10_000) for n in range(12)]
    assert [n for n, one in enumerate(digests) if one] == [10], "60 seconds after it began, and 30 more"
    assert digests[10] == AlertDigest(new=("no worker is running; events are recorded, and their jobs wait",))
    ((_, mail),) = mailbox.mails
    assert mail["X-Idempotency-Key"].startswith("holdfast:watch:")
