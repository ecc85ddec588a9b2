"""The sweep: every worker looks every second for jobs whose time has come or whose lease ran out, and rings again.

So it is also where the hour is noticed at which somebody must ask Stripe what we missed, and where alarms are.
"""

from __future__ import annotations

import random
import threading
import time

import structlog

from inbox.store import Store
from tasks import broker
from tasks.billing import reconcile
from tasks.routes import QUEUES
from workers.alerts import AlertScheduler

log = structlog.get_logger()

EVERY_SECONDS = 1.0
LIMIT = 200  # jobs a sweep; the next one comes in a second


def sweep(store: Store) -> int:
    """Look once. Returns how many doorbells were rung."""
    bells = store.sweep(LIMIT, broker.doorbell_capacity(QUEUES))
    broker.ring(bells)
    return len(bells)


class Sweeper(threading.Thread):
    """Sweeps as long as its process lives; no error ends it, for without it late jobs would wait for ever."""

    def __init__(self, store: Store, *, reconciles: bool = False, alerts: AlertScheduler | None = None) -> None:
        super().__init__(daemon=True, name="sweeper")
        self._store, self._reconciles, self._alerts = store, reconciles, alerts
        self._asked = ""

    def run(self) -> None:
        while True:
            time.sleep(EVERY_SECONDS * (0.75 + random.random() / 2))  # noqa: S311  jitter: they must not look in step
            try:
                sweep(self._store)
                if self._reconciles:
                    self._asked = reconcile.request_hourly(self._store, self._asked)
                if self._alerts:
                    self._alerts.run_if_due()
            except Exception as error:
                log.warning("sweep failed; the next one comes in a second", error=type(error).__name__)
