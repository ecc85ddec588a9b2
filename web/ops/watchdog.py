"""Alerts that workers cannot send: no worker is running, or the store is unavailable. Each receiver process checks.

They are sent through Apprise directly, without the record, so a restarted process may repeat an alert.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from inbox import alert_rules, queries
from inbox.alert_rules import AlertDigest, AlertState
from inbox.errors import HoldfastError, StoreUnavailable
from inbox.store import Store
from settings import Settings
from tasks.notifications.apprise_client import render_message, send_message, with_idempotency_key

log = structlog.get_logger()

EVERY_SECONDS = 10
GRACE_MS = 30_000  # a restart causes no alert
NO_SWEEP_MS = 60_000


class Watchdog:
    """One for each process. Times in ms since 1970."""

    def __init__(self, settings: Settings, store: Store, began: int) -> None:
        self._settings, self._store, self._began = settings, store, began
        self._standing: dict[str, AlertState] = {}

    def look(self, now: int) -> AlertDigest:
        """Find out what is wrong and tell what is to be told; answers that."""
        quiet = self._settings.alert_quiet * 1000
        found = find_problems(self._store, self._began, now)
        self._standing, told = alert_rules.decide(self._standing, found, now, quiet, GRACE_MS)
        if told:
            self._tell(told, now)
        return told

    def _tell(self, told: AlertDigest, now: int) -> None:
        about = {"subject": told.subject(), "text": told.text()}
        key = f"holdfast:watch:{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%dT%H:%M:%S}"
        for url in self._settings.alert_urls:
            with suppress(HoldfastError):  # a URL or a template that is wrong; workers tell that, too
                if send_message(with_idempotency_key(url, key), *render_message(self._settings, "alert", None, about)):
                    continue
            log.error("an alert could not be told", alert=told.subject(), service=url.partition("://")[0])


def find_problems(store: Store, began: int, now: int) -> dict[str, str]:
    """What is wrong now, by name, in words; who watches `began` then."""
    try:
        return {name: words for name, words in (_workers(store, began, now), _file(store)) if words}
    except StoreUnavailable as error:
        return {"store": f"{error}; senders hear 503 and try again"}


def _workers(store: Store, began: int, now: int) -> tuple[str, str]:
    unseen = store.now_ms() - (queries.last_sweep_ms(store) or 0)  # by the store's own clock
    away = min(unseen, now - began) > NO_SWEEP_MS
    return "workers", "no worker looks for jobs; events are taken in and wait" if away else ""


def _file(store: Store) -> tuple[str, str]:
    return "file", "" if queries.is_writing_to_disk(store) else "the store cannot write to its disk; senders hear 503"


def start(settings: Settings, store: Store) -> None:
    """Watch as long as this process lives, from a thread; no error ends it."""
    watch = Watchdog(settings, store, _now())

    def work() -> None:
        while True:
            time.sleep(EVERY_SECONDS)
            try:
                watch.look(_now())
            except Exception as error:
                log.warning("the watch could not look; it looks again soon", error=type(error).__name__)

    threading.Thread(target=work, daemon=True, name="watch").start()


def _now() -> int:
    return int(time.time() * 1000)
