"""Alerts about the store and the workers as a whole, most of which no worker could send. Each receiver process checks.

They are sent through Apprise directly, without the record, so a restarted process may repeat an alert.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from inbox import alert_rules, queries, statistics, worker_registry
from inbox.alert_rules import AlertDigest, AlertState
from inbox.errors import HoldfastError, StoreUnavailable
from inbox.store import Store
from settings import Settings
from tasks.notifications.apprise_client import send_message
from tasks.notifications.recipients import Recipient
from tasks.notifications.rendering import render_message
from tasks.routes import QUEUES
from web.ops.health import loss_risk

log = structlog.get_logger()

EVERY_SECONDS = 10
GRACE_MS = 30_000  # a restart causes no alert
NO_SWEEP_MS = 60_000


class Watchdog:
    """One per process. Times are milliseconds since 1970; `started_at` is when it began to check."""

    def __init__(self, settings: Settings, store: Store, started_at: int) -> None:
        self._settings, self._store, self._started_at = settings, store, started_at
        self._alerts: dict[str, AlertState] = {}

    def check(self, now: int) -> AlertDigest:
        """Check the workers and the store, and send the alerts that are due. Returns what was sent."""
        quiet_ms = self._settings.alert_quiet * 1000
        found = find_problems(self._store, self._settings, self._started_at, now)
        self._alerts, digest = alert_rules.decide(self._alerts, found, now, quiet_ms, GRACE_MS)
        if digest:
            self._send(digest, now)
        return digest

    def _send(self, digest: AlertDigest, now: int) -> None:
        context = {"subject": digest.subject(), "text": digest.text()}
        key = f"holdfast:watch:{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
        for url in self._settings.alert_urls:
            with suppress(HoldfastError):  # a wrong URL or template, which workers report, too
                message, _ = render_message(self._settings, "alert", (), context)
                if send_message(url, message, key, Recipient()):
                    continue
            log.error("an alert could not be sent", alert=digest.subject(), service=url.partition("://")[0])


def find_problems(store: Store, settings: Settings, started_at: int, now: int) -> dict[str, str]:
    """The message of each alert that fires now, by the alert's name."""
    try:
        found = {}
        if _workers_absent(store, started_at, now):
            found["workers"] = "no worker is running; events are recorded, and their jobs wait"
        else:
            abandoned = _abandoned_queues(store)
            found |= {f"queue {queue}": f"no worker consumes {queue}, and its jobs wait" for queue in abandoned}
        failed = queries.failed_disk_writes(store)
        if "aof_last_write_status" in failed:
            found["file"] = "the store cannot write to its disk; sources receive 503 and try again"
        if "aof_last_bgrewrite_status" in failed:
            found["rewrite"] = "the store cannot rewrite its append-only file, which grows until its disk is full"
        if risk := loss_risk(store, settings):
            found["durability"] = risk
    except StoreUnavailable as error:
        return {"store": f"{error}; sources receive 503 and try again"}
    return found


def _workers_absent(store: Store, started_at: int, now: int) -> bool:
    """True if no worker has swept for NO_SWEEP_MS, counted from `started_at` at the earliest."""
    unswept_ms = store.now_ms() - (queries.last_sweep_ms(store) or 0)  # both by the store's clock
    return min(unswept_ms, now - started_at) > NO_SWEEP_MS


def _abandoned_queues(store: Store) -> list[str]:
    """Those that have unfinished jobs and no worker."""
    without = worker_registry.queues_without_worker(store, QUEUES)
    return [queue for queue, (jobs, _) in statistics.unfinished_by_queue(store, without).items() if jobs]


def start(settings: Settings, store: Store) -> None:
    """Check every EVERY_SECONDS in a thread as long as this process lives; no error ends it."""
    watchdog = Watchdog(settings, store, _now())

    def run() -> None:
        while True:
            time.sleep(EVERY_SECONDS)
            try:
                watchdog.check(_now())
            except Exception as error:
                log.warning("the watchdog could not check; it tries again soon", error=type(error).__name__)

    threading.Thread(target=run, daemon=True, name="watchdog").start()


def _now() -> int:
    return int(time.time() * 1000)
