"""The Celery app for Flower: `celery -A workers.flower_app flower`. Without the tasks, whose libraries take 50 MB:
Flower learns their names from the workers' events."""

from __future__ import annotations

from settings import SettingsError, load
from tasks import broker
from telemetry import logs

try:
    load()
except SettingsError as error:
    raise SystemExit(f"holdfast: {error}") from None

logs.configure()
app = broker.app
