"""The checks of `holdfast doctor`: settings, connections and durability.

A check returns Findings and changes nothing. No finding contains a secret, or a URL that may contain one.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cli.network import is_loopback
from inbox import layout, queries
from inbox.errors import HoldfastError, StoreUnavailable
from inbox.event import Event
from inbox.memory_guard import NEARLY_FULL
from inbox.store import Store
from settings import Settings, SettingsError
from tasks import broker, route_check, stripe_types
from tasks.clients import stripe
from tasks.db.engine import is_read_only
from tasks.db.migrate import current_and_head
from tasks.documents.store_factory import open_store
from tasks.handler import Attempt
from tasks.notifications import apprise_client
from tasks.notifications.rendering import check_templates
from tasks.routes import QUEUES
from web.ops import health
from web.receiver import sources

TIMEOUT_SECONDS = 3.0
MAX_CLOCK_SKEW_SECONDS = 5  # more than a slow network explains; signatures allow SIGNATURE_TOLERANCE_SECONDS


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was found, and if that is not `ok`, the command or setting that fixes it."""

    ok: bool
    check: str
    found: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Run all checks."""
    yield from _receiver(settings)
    yield from store(settings)
    yield _broker()
    yield _database(settings)
    yield _documents(settings)
    yield from _notifications(settings)
    yield from _peers(settings)


# --- receiver, API and console ----------------------------------------------------------------------------------------


def _receiver(settings: Settings) -> Iterator[Finding]:
    names = ", ".join(sources.configured_sources(settings))
    fix = "set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES_FILE: until then every webhook is rejected"
    yield Finding(bool(names), "sources", names or "none configured", fix)
    try:
        route_check.check(settings)
        stripe_types.check()
        yield Finding(True, "routes", "every route has a handler")
    except route_check.RouteError as error:
        yield Finding(False, "routes", str(error), "correct tasks/routes.py")
    keys = len(settings.api_keys)
    fix = "set API_KEYS: without a key the API and the console are disabled"
    yield Finding(bool(keys), "API_KEYS", f"{keys} keys" if keys else "not set", fix)
    yield public_url(settings.public_url)


def public_url(url: str) -> Finding:
    """Must be https, because other services send data there; http is accepted on a loopback address."""
    if not url:
        return Finding(True, "PUBLIC_URL", "not set: messages contain no links, and documents cannot be requested")
    parts = urlsplit(url)
    ok = parts.scheme == "https" or is_loopback(parts.hostname or "")
    return Finding(ok, "PUBLIC_URL", url, "use an https URL: data sent over http can be read and changed on its way")


# --- the store --------------------------------------------------------------------------------------------------------


def store(settings: Settings) -> Iterator[Finding]:
    """Reachable, durable, with free memory, and used by a worker."""
    record = broker.open_store(settings, timeout_seconds=TIMEOUT_SECONDS)
    with closing(record.client):
        try:
            before, now_ms, after = time.time(), record.now_ms(), time.time()
        except StoreUnavailable as error:
            fix = "start Redis or Valkey; check REDIS_URL and its password"
            yield Finding(False, "store", str(error), fix)
            return
        if problem := broker.cluster_problem(record, settings):
            yield Finding(False, "store", problem, "use a server without cluster mode, or set BROKER_URL to one")
        else:
            yield Finding(True, "store", "reachable")
        newer = layout.problem(record)
        yield Finding(not newer, "layout", newer or str(layout.LAYOUT), "install that version again, or a newer one")
        yield clock(now_ms / 1000, before, after)
        fix = f"configure the server as in deploy/valkey.conf: DURABILITY={settings.durability} requires it"
        yield _health("durability", health.check_store(record, settings), fix)
        yield memory(*record.memory())
        yield _disk_writes(record)
        fix = f"start a worker: celery -A workers.app worker -Q {','.join(QUEUES)}"
        yield _health("workers", health.check_sweep(record), fix)


def _disk_writes(store: Store) -> Finding:
    failed = [f"{name} is {status}" for name, status in queries.failed_disk_writes(store).items()]
    fix = "see the server's log: its disk is full or broken, or it has too little memory to rewrite its file"
    return Finding(not failed, "append-only file", "; ".join(failed) or "the last writes succeeded", fix)


def clock(theirs: float, before: float, after: float) -> Finding:
    """Seconds since 1970: the store's time, and this machine's before and after the store was asked."""
    skew = max(before - theirs, theirs - after, 0.0)
    fix = "synchronize both clocks by NTP: signatures are checked by this machine's, retries are due by the store's"
    return Finding(skew <= MAX_CLOCK_SKEW_SECONDS, "clock", f"differs from the store's by {skew:.1f} s", fix)


def memory(used: int, limit: int) -> Finding:
    """In bytes; `limit` is 0 if there is none."""
    if not limit:
        return Finding(True, "memory", f"{used >> 20} MB used; maxmemory is not set, so only the machine limits it")
    fix = f"raise maxmemory: above {NEARLY_FULL:.0%} every webhook is answered with 503"
    return Finding(used <= limit * NEARLY_FULL, "memory", f"{used >> 20} of {limit >> 20} MB used", fix)


def _broker() -> Finding:
    return _health("broker", health.check_broker(), "start the broker; check BROKER_URL")


def _health(check: str, result: str, fix: str) -> Finding:
    return Finding(result == "ok", check, result, fix)


# --- the database and the documents -----------------------------------------------------------------------------------


def _database(settings: Settings) -> Finding:
    create = "run: python -m tasks.upgrade"
    file = settings.database_url.removeprefix("sqlite:///")
    if file != settings.database_url and not Path(file).is_file():
        return Finding(False, "database", "the SQLite file does not exist", create)
    try:
        current, newest = current_and_head(settings.database_url)
    except SQLAlchemyError as error:
        if isinstance(error, OperationalError) and is_read_only(error):
            return Finding(False, "database", "is read-only", "let DATABASE_URL lead to the primary, not to a standby")
        found = f"cannot be reached ({type(error).__name__})"
        return Finding(False, "database", found, "start the database; check DATABASE_URL")
    return Finding(current == newest, "database", f"schema revision {current or 'none'}, newest is {newest}", create)


def _documents(settings: Settings) -> Finding:
    """For S3: look up an object that does not exist. A folder may not exist yet: the first document creates it."""
    check = settings.spool_folder_setting
    if settings.document_store.startswith("s3://"):
        try:
            open_store(settings.document_store).find("doctor")
        except HoldfastError as error:
            fix = "check the bucket's name and permissions, and the AWS_… variables"
            return Finding(False, "DOCUMENT_STORE", str(error), fix)
    folder = _nearest_existing(Path(settings.spool_folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        fix = "allow the workers' user to write there; the receiver needs no write access"
        return Finding(False, check, f"{folder} is not writable", fix)
    return disk(check, folder, shutil.disk_usage(folder).free, settings.max_document_bytes)


def disk(check: str, folder: Path, free: int, max_document: int) -> Finding:
    """Bytes: `free` on the disk, and the size that one document may have."""
    found = f"{folder} is writable, {free >> 20} MB free"
    fix = f"free disk space: one document may have {max_document >> 20} MB (MAX_DOCUMENT_BYTES)"
    return Finding(free >= max_document, check, found, fix)


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


# --- services that we call --------------------------------------------------------------------------------------------


def _notifications(settings: Settings) -> Iterator[Finding]:
    try:
        check_templates(settings)
        yield Finding(
            True, "messages", f"texts of {settings.templates}" if settings.templates else "the built-in texts"
        )
    except SettingsError as error:
        yield Finding(False, "messages", str(error), "correct the text, or the setting: docs/messages.md")
    for name in ("CUSTOMER_NOTIFY_URLS", "ADMIN_NOTIFY_URLS"):
        urls = getattr(settings, name.lower())
        servers = [apprise_client.mail_server(url) for url in urls]
        invalid = [str(number) for number, server in enumerate(servers, 1) if server is None]
        if invalid:
            fix = "see https://github.com/caronc/apprise/wiki for the URL of each service"
            yield Finding(False, name, f"no valid Apprise URL: number {', '.join(invalid)} of {len(urls)}", fix)
        else:
            yield Finding(True, name, f"{len(urls)} services" if urls else "not set: these messages are not sent")
        for host, port in {server for server in servers if server and server[0]}:
            yield _reachable(f"{name}: mail server", host, port)


def _peers(settings: Settings) -> Iterator[Finding]:
    if settings.stripe_api_key:
        found = _stripe(settings)
        yield found
        if found.ok and settings.payment_retry_schedule:
            yield _retries(settings)
    for name in ("DOC_SERVICE_URL", "APP_WEBHOOK_URL"):
        if url := getattr(settings, name.lower()):
            parts = urlsplit(url)
            yield _reachable(name, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _attempt(settings: Settings) -> Attempt:
    now = datetime.now(UTC)
    return Attempt("doctor", Event("stripe", "doctor", "doctor", b"{}"), {}, 1, now, settings, lambda: None)


def _retries(settings: Settings) -> Finding:
    """Whether Stripe retries failed payments, too. Its setting cannot be read; the newest unpaid invoices show it."""
    check = "PAYMENT_RETRY_SCHEDULE"
    try:
        unpaid = stripe.list_open_invoices(_attempt(settings))
    except HoldfastError as error:
        return Finding(
            False,
            check,
            f"open invoices: {error}",
            "allow the key to read Invoices, and check the connection to STRIPE_API_BASE",
        )
    tried = [invoice for invoice in unpaid if invoice.get("attempted")]
    by_stripe = sum(invoice.get("next_payment_attempt") is not None for invoice in tried)
    fix = "set PAYMENT_RETRY_SCHEDULE=off, or switch Stripe's retries off (Billing, Revenue recovery, Retries)"
    found = f"Stripe retries {by_stripe} of {len(tried)} failed invoices by itself"
    return Finding(not by_stripe, check, found, fix)


def _stripe(settings: Settings) -> Finding:
    """One request, the one that reconcile makes."""
    attempt = _attempt(settings)
    now = attempt.now
    try:
        stripe.list_events(attempt, (), int(now.timestamp()) - 60, int(now.timestamp()), "", everything=True)
    except HoldfastError as error:
        fix = "check the key, its permission to read Events, and the connection to STRIPE_API_BASE"
        return Finding(False, "STRIPE_API_KEY", str(error), fix)
    mode = "live" if "_live_" in settings.stripe_api_key[:8] else "test"
    return Finding(True, "STRIPE_API_KEY", f"a valid {mode} key")


def _reachable(check: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), TIMEOUT_SECONDS).close()
    except OSError as error:
        found = f"{host}:{port} cannot be reached ({type(error).__name__})"
        return Finding(False, check, found, "start the service, or allow this machine to connect to it")
    return Finding(True, check, f"{host}:{port} is reachable")
