"""What a serving process of `python -m web` runs, and the check of the settings before the first one starts."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress

import structlog

from inbox.errors import StoreUnavailable
from settings import Settings, SettingsError, load
from tasks import route_check
from tasks.broker import open_store, store_problem
from tasks.derived_keys import derive_key
from tasks.notifications.rendering import check_templates
from telemetry import logs
from web.application import STORE_TIMEOUT_SECONDS, create_asgi_app
from web.ops import watchdog
from web.ops.health import loss_risk
from web.receiver import sources
from web.receiver.asgi import AsgiApp

log = structlog.get_logger()


def check(settings: Settings) -> None:
    """Exits with one line about the first setting or table of routes with which nothing can be served."""
    try:
        if not sources.configured_sources(settings):
            raise SettingsError("no source is configured; set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES")
        route_check.check(settings)
        check_templates(settings)
    except (SettingsError, route_check.RouteError) as error:
        sys.exit(f"holdfast: {error}")
    _check_store(settings)


def _check_store(settings: Settings) -> None:
    """Without the store nothing is said: it may come later. /readyz and the alerts watch it from then on."""
    store = open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS)
    if problem := store_problem(store, settings):
        sys.exit(f"holdfast: {problem}")
    with suppress(StoreUnavailable):
        if risk := loss_risk(store, settings):
            logs.configure()
            log.error(risk)


def application() -> AsgiApp:
    """Called in each serving process."""
    logs.configure()
    threading.Thread(target=_end_with_parent, daemon=True, name="parent-watch").start()
    settings = load()
    if settings.alert_urls:
        watchdog.start(settings, open_store(settings, timeout_seconds=STORE_TIMEOUT_SECONDS))
    for key in settings.api_keys:
        derive_key(key.secret, "")  # 0.2 s, once: the event loop must not wait for it
    app = create_asgi_app(settings)
    gc.collect()
    gc.freeze()  # otherwise each full collection scans all these modules for 90 ms, and clients wait
    return app


def _end_with_parent() -> None:
    """A serving process would outlive a killed supervisor and listen beside its successor, with outdated settings."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
