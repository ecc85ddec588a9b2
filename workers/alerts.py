"""The alert check: once a minute for all workers together, by whichever worker is first.

There is no leader. A worker decides from the record, and one script saves the alerts and records the event that
announces them, unless another worker has done so meanwhile. A worker that dies before the script has changed nothing,
and the next worker to check decides the same.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from inbox import alert_rules, alert_state
from inbox.alert_rules import AlertDigest, AlertThresholds
from inbox.event import Event, NewEvent
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.notifications.alerts import ALERT_DUE
from tasks.routes import OWN_SOURCE, QUEUES, jobs_for

EVERY_MS = 60_000
POLL_SECONDS = 10  # each worker asks the record that often whether a check is due: the delay that a death costs


class AlertScheduler:
    """One per worker; `run_if_due` may be called at any time by any number of workers."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._documents = store, Path(settings.spool_folder)
        self._quiet_ms = settings.alert_quiet * 1000
        silent_ms = {source: seconds * 1000 for source, seconds in settings.alert_silent.items()}
        self._thresholds = AlertThresholds(settings.alert_backlog_seconds * 1000, silent_ms)
        self._polled = 0.0

    def run_if_due(self) -> None:
        """Check the alerts if EVERY_MS have passed since any worker's last check. Raises StoreUnavailable."""
        if time.monotonic() - self._polled < min(POLL_SECONDS, EVERY_MS / 1000):
            return
        self._polled = time.monotonic()
        before, now = alert_state.load_alerts(self._store), self._store.now_ms()
        if 0 <= now - before.checked_ms < EVERY_MS:
            return
        alert_state.record_disk(self._store, socket.gethostname(), _short_disk_bytes(self._documents), now)
        firing = alert_rules.firing_alerts(alert_state.measure(self._store, QUEUES, now), self._thresholds)
        alerts, digest = alert_rules.decide(before.alerts, firing, now, self._quiet_ms)
        bells = alert_state.save_alerts(self._store, before, alerts, _event(digest, now) if digest else None)
        if not isinstance(bells, str):
            broker.ring(bells)


def _event(digest: AlertDigest, now: int) -> NewEvent:
    event_id = f"alert:{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%dT%H:%M:%S.%f}"
    event = Event(OWN_SOURCE, event_id, ALERT_DUE, json.dumps(asdict(digest)).encode())
    return NewEvent(event, jobs_for(OWN_SOURCE, event_id, ALERT_DUE))


def _short_disk_bytes(folder: Path) -> int | None:
    """The free bytes of the folder's disk if it is short, else None."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(existing)
    return usage.free if alert_rules.is_disk_short(usage.free, usage.total) else None
