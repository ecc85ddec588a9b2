"""What is wrong is noticed: once a minute, all workers together, whichever of them comes first.

Nobody is chosen for it. Whoever looks decides by what the record says, and one script writes down how the alarms stand
and owes the message, unless somebody else has done so since: who dies on the way has changed nothing, and the next
worker that looks decides the same.
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
from inbox.alert_rules import Limits, Told
from inbox.event import Arrival, Event
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.notifications.alerts import DUE, SOURCE
from tasks.routes import QUEUES, jobs_for

EVERY_MS = 60_000
LOOK_SECONDS = 10  # so often each worker asks whether somebody has looked: the time that a death costs


class Lookout:
    """One for each worker. `look` may be called at any time, by any number of workers."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._documents = store, Path(settings.document_incoming)
        self._quiet_ms = settings.alert_quiet * 1000
        silent = {source: seconds * 1000 for source, seconds in settings.alert_silent.items()}
        self._limits = Limits(settings.alert_backlog_seconds * 1000, silent)
        self._asked = 0.0

    def look(self) -> None:
        """Decide, if it is time and nobody else has. Raises StoreUnavailable."""
        if time.monotonic() - self._asked < min(LOOK_SECONDS, EVERY_MS / 1000):
            return
        self._asked = time.monotonic()
        before, now = alert_state.seen(self._store), self._store.now_ms()
        if 0 <= now - before.looked < EVERY_MS:
            return
        alert_state.tell_disk(self._store, socket.gethostname(), _short(self._documents), now)
        firing = alert_rules.firing(alert_state.measured(self._store, QUEUES, now), self._limits)
        standing, told = alert_rules.decide(before.standing, firing, now, self._quiet_ms)
        bells = alert_state.write(self._store, before, standing, _event(told, now) if told else None)
        if not isinstance(bells, str):
            broker.ring(bells)


def _event(told: Told, now: int) -> Arrival:
    name = f"alert:{datetime.fromtimestamp(now / 1000, UTC):%Y-%m-%dT%H:%M:%S.%f}"
    event = Event(SOURCE, name, DUE, json.dumps(asdict(told)).encode())
    return Arrival(event, jobs_for(SOURCE, name, DUE))


def _short(folder: Path) -> int | None:
    """How many bytes are free for documents, where those are few."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    usage = shutil.disk_usage(there)
    return usage.free if alert_rules.short(usage.free, usage.total) else None
