"""The sweep: every second, a worker rings for jobs that are due, whose lease expired or whose doorbell was lost.

It also announces the worker, and starts the hourly reconcile with Stripe and the alert check.
"""

from __future__ import annotations

import random
import threading
import time

import structlog

from inbox import queries
from inbox.store import Store
from tasks import broker
from tasks.billing import reconcile
from tasks.routes import QUEUES
from workers.alerts import AlertScheduler
from workers.registration import Registration

log = structlog.get_logger()

EVERY_SECONDS = 1.0
PAUSE_MS = 700  # the least time between two sweeps, by whichever workers: less than a worker's pause
LIMIT = 500  # due jobs per sweep: the store serves no other client for about 5 ms


def sweep(store: Store) -> int:
    """Sweep once. Returns how many doorbells were rung."""
    bells = store.sweep(LIMIT, broker.doorbell_capacity(QUEUES))
    broker.ring(store.push(bells))
    return len(bells)


def sweep_if_due(store: Store) -> None:
    """Sweep, unless a worker has just done so; and again, for at most a second, while there is more than fits into one.

    If the store's clock was set back, the last sweep seems to be in the future: then this one is due.
    """
    swept_at = queries.last_sweep_ms(store)
    if swept_at is not None and 0 <= store.now_ms() - swept_at < PAUSE_MS:
        return
    end = time.monotonic() + EVERY_SECONDS
    while sweep(store) >= LIMIT and time.monotonic() < end:
        pass


class Sweeper(threading.Thread):
    """Sweeps as long as its process lives. No error stops it, because without sweeps retries would never run."""

    def __init__(
        self, store: Store, registration: Registration, *, reconciles: bool, alerts: AlertScheduler | None
    ) -> None:
        super().__init__(daemon=True, name="sweeper")
        self._store, self._registration, self._reconciles, self._alerts = store, registration, reconciles, alerts
        self._requested_hour = ""

    def run(self) -> None:
        while True:
            time.sleep(EVERY_SECONDS * (0.75 + random.random() / 2))  # noqa: S311  jitter, so that workers do not sweep at the same time
            try:
                self._registration.announce_if_due()
                sweep_if_due(self._store)
                if self._reconciles:
                    self._requested_hour = reconcile.request_hourly(self._store, self._requested_hour)
                if self._alerts:
                    self._alerts.run_if_due()
            except Exception as error:
                log.warning("sweep failed; the next one is in a second", error=type(error).__name__)
