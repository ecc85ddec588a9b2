"""Handlers of Celery's signals: start the sweep and the heartbeat, stop softly on SIGTERM, touch the heartbeat file."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from celery import signals

from settings import Settings
from tasks import broker
from tasks.private_files import keep_files_private
from telemetry import tracing
from workers import soft_stop, time_limits
from workers.alerts import AlertScheduler
from workers.channels import Channels
from workers.liveness import Liveness
from workers.registration import Registration
from workers.sweep import Sweeper

log = structlog.get_logger()


def connect(settings: Settings, worker: str, channels: Channels | None) -> None:
    """Takes effect only in a worker: other processes that load the app, such as Flower, send none of these signals."""

    # Not weak: there is no other reference to these functions.
    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def start_threads(sender: Any, **_: Any) -> None:
        """They run in the worker's main process, beside the pool. `sender` is Celery's Consumer."""
        reconciles = bool(settings.stripe_api_key)
        if not reconciles:
            log.info("reconcile is off: STRIPE_API_KEY is not set")
        store = broker.open_store(settings, timeout_seconds=5)
        alerts = AlertScheduler(store, settings) if settings.alert_urls else None
        registration = Registration(store, worker, sender)
        Sweeper(store, registration, reconciles=reconciles, alerts=alerts).start()
        Liveness(broker.open_store(settings, timeout_seconds=2), worker, sender.pool).start()

    @signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def check_time_limit(options: Mapping[str, Any], **_: Any) -> None:
        if problem := time_limits.problem(options, settings):
            raise SystemExit(f"holdfast: {problem}, or a slow job would run twice at once")

    @signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def check_store(**_: Any) -> None:
        """At the start, and again if the store was not available then."""
        if problem := broker.store_problem(broker.open_store(settings, timeout_seconds=2), settings):
            raise SystemExit(f"holdfast: {problem}")

    @signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def begin(**_: Any) -> None:
        keep_files_private()
        time_limits.stop_in_time(settings)

    @signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
    def hide_banner(instance: Any, **_: Any) -> None:
        """Forty lines of ASCII art do not belong among lines of JSON."""
        instance.quiet = True

    signals.worker_before_create_process.connect(_share_heap)

    @signals.worker_process_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
    def send_last_spans(**_: Any) -> None:
        """A pool process exits without running its atexit handlers."""
        tracing.stop()

    @signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
    def begin_and_stop_softly(sender: Any, **_: Any) -> None:
        if channels:
            soft_stop.wait_for_slots(sender.controller, channels)
            channels.start_leasing()
        soft_stop.on_sigterm(channels.stop_leasing if channels else lambda: None)

    if settings.heartbeat_file:

        @signals.heartbeat_sent.connect(weak=False)  # type: ignore[untyped-decorator]
        def touch_heartbeat_file(**_: Any) -> None:
            """Every 2 seconds while the worker's event loop runs and the broker is connected: a cheap health check."""
            Path(settings.heartbeat_file).touch()


def _share_heap(**_: Any) -> None:
    """Before each fork Celery collects garbage, which writes to every object, and so copies each page that earlier
    children share. Frozen objects are left out of all collections."""
    gc.collect()
    gc.freeze()
