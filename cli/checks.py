"""What `holdfast doctor` looks at: each setting, connection and promise, and how to mend what is wrong.

A check answers Findings and changes nothing. None of them holds a secret or an address that might hold one.
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
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from inbox import queries
from inbox.errors import HoldfastError, StoreUnavailable
from inbox.event import Event
from inbox.memory_guard import NEARLY_FULL
from inbox.store import Store
from settings import Settings
from tasks import broker, route_check
from tasks.clients import stripe
from tasks.db.migrate import revisions
from tasks.documents.store_factory import open_store
from tasks.handler import Attempt
from tasks.notifications import apprise_client
from web.ops import health
from web.receiver import sources

WAIT_SECONDS = 3.0
SKEW_SECONDS = 5  # signatures are allowed SIGNATURE_TOLERANCE_SECONDS; this much is no network any more


@dataclass(frozen=True, slots=True)
class Finding:
    """`found` is what there is, in words; `mend` says what to do where that is not `ok`."""

    ok: bool
    what: str
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, from what is set to whom it is about."""
    yield from _access(settings)
    yield from store(settings)
    yield _broker()
    yield _database(settings)
    yield _documents(settings)
    yield from _messages(settings)
    yield from _peers(settings)


# --- who may come in --------------------------------------------------------------------------------------------------


def _access(settings: Settings) -> Iterator[Finding]:
    names = ", ".join(sources.configured(settings))
    yield Finding(
        bool(names), "sources", names or "none", "set STRIPE_WEBHOOK_SECRET, DOC_WEBHOOK_SECRET or SOURCES_FILE"
    )
    try:
        route_check.check(settings)
        yield Finding(True, "routes", "every route leads somewhere")
    except route_check.RouteError as error:
        yield Finding(False, "routes", str(error), "correct tasks/routes.py")
    keys = len(settings.api_keys)
    yield Finding(bool(keys), "API_KEYS", f"{keys} set", "set one: without it API and console are closed")
    yield public_url(settings.public_url)


def public_url(url: str) -> Finding:
    """Others may be told of it only by https; on this machine nobody else listens."""
    if not url:
        return Finding(True, "PUBLIC_URL", "not set: links in messages lead nowhere, and no document can be asked for")
    parts = urlsplit(url)
    ok = parts.scheme == "https" or is_loopback(parts.hostname or "")
    return Finding(
        ok, "PUBLIC_URL", url, "give it https: what is sent there by http can be read and changed on its way"
    )


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- the store --------------------------------------------------------------------------------------------------------


def store(settings: Settings) -> Iterator[Finding]:
    """Is it there, and does it keep the promise?"""
    record = broker.open_store(settings, timeout_seconds=WAIT_SECONDS)
    with closing(record.client):
        try:
            before, now_ms, after = time.time(), record.now_ms(), time.time()
        except StoreUnavailable as error:
            yield Finding(False, "store", str(error), "start Redis or Valkey, and check REDIS_URL and its password")
            return
        yield Finding(True, "store", "answers")
        yield clock(now_ms / 1000, before, after)
        set_so = health.check_store(record, settings)
        yield _of_check(
            "durability", set_so, f"set the server so (deploy/valkey.conf), for DURABILITY={settings.durability}"
        )
        yield from _room_and_disk(record)
        yield _of_check("sweep", health.check_sweep(record), "start a worker: celery -A workers.app worker")


def _room_and_disk(store: Store) -> Iterator[Finding]:
    yield memory(*store.memory())
    bad = [f"{name} is {word}" for name, word in queries.persistence_status(store).items() if word not in ("ok", "")]
    mend = "see the server's log: its disk is full or broken, and what it took since may be lost"
    yield Finding(not bad, "append-only file", "; ".join(bad) or "the last writes went well", mend)


def clock(theirs: float, before: float, after: float) -> Finding:
    """Seconds since 1970: the store's, and ours before and after it was asked."""
    apart = max(before - theirs, theirs - after, 0.0)
    return Finding(
        apart <= SKEW_SECONDS,
        "clock",
        f"{apart:.1f} s apart from the store's",
        "set both clocks by NTP: signatures are held to the one, retries to the other",
    )


def memory(used: int, most: int) -> Finding:
    """In bytes; `most` is 0 where there is no limit."""
    if not most:
        return Finding(True, "memory", f"{used >> 20} MB used; no maxmemory, so only the machine bounds it")
    words = f"{used >> 20} of {most >> 20} MB used"
    return Finding(used <= most * NEARLY_FULL, "memory", words, "give maxmemory more: senders hear 503")


def _broker() -> Finding:
    return _of_check("broker", health.check_broker(), "start it, and check BROKER_URL")


def _of_check(what: str, said: str, mend: str) -> Finding:
    return Finding(said == "ok", what, said, mend)


# --- the database and the documents -----------------------------------------------------------------------------------


def _database(settings: Settings) -> Finding:
    file = settings.database_url.removeprefix("sqlite:///")
    if file != settings.database_url and not Path(file).is_file():
        return Finding(False, "database", "its file is not there", "python -m tasks.upgrade")
    try:
        now, newest = revisions(settings.database_url)
    except SQLAlchemyError as error:
        return Finding(False, "database", f"cannot be reached ({type(error).__name__})", "start it; check DATABASE_URL")
    words = f"tables of revision {now or 'none'}, the newest is {newest}"
    return Finding(now == newest, "database", words, "python -m tasks.upgrade")


def _documents(settings: Settings) -> Finding:
    """S3 is asked for a document that is not there; a folder may be made by the first document."""
    what = settings.document_incoming_setting
    if settings.document_store.startswith("s3://"):
        try:
            open_store(settings.document_store).find("doctor")
        except HoldfastError as error:
            return Finding(False, "DOCUMENT_STORE", str(error), "check the bucket's name and rights, and AWS_…")
    folder = _standing(Path(settings.document_incoming))
    if not os.access(folder, os.W_OK | os.X_OK):
        mend = "let the workers' user write there; only workers need to"
        return Finding(False, what, f"{folder} cannot be written to", mend)
    return disk(what, folder, shutil.disk_usage(folder).free, settings.max_document_bytes)


def disk(what: str, folder: Path, free: int, most: int) -> Finding:
    """In bytes; `most` is what one document may take."""
    words = f"{folder} can be written to, {free >> 20} MB free"
    return Finding(free >= most, what, words, f"make room: a document of MAX_DOCUMENT_BYTES takes {most >> 20} MB")


def _standing(path: Path) -> Path:
    """The path, or the nearest above it that is there."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


# --- whom we tell and ask ---------------------------------------------------------------------------------------------


def _messages(settings: Settings) -> Iterator[Finding]:
    for name in ("CUSTOMER_NOTIFY_URLS", "ADMIN_NOTIFY_URLS"):
        urls = getattr(settings, name.lower())
        places = [apprise_client.reached(url) for url in urls]
        wrong = [str(place) for place, reached in enumerate(places, 1) if reached is None]
        mend = "see https://github.com/caronc/apprise/wiki for how a URL of each service looks"
        if wrong:
            yield Finding(False, name, f"number {', '.join(wrong)} of {len(urls)} is no Apprise URL", mend)
        else:
            yield Finding(True, name, f"{len(urls)} services" if urls else "not set: nobody is told")
        for host, port in {place for place in places if place and place[0]}:
            yield _reachable(f"{name}: mail", host, port)


def _peers(settings: Settings) -> Iterator[Finding]:
    if settings.stripe_api_key:
        yield _stripe(settings)
    for name in ("DOC_SERVICE_URL", "APP_WEBHOOK_URL"):
        if url := getattr(settings, name.lower()):
            parts = urlsplit(url)
            yield _reachable(name, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _stripe(settings: Settings) -> Finding:
    """One question, the one that reconcile asks."""
    now = datetime.now(UTC)
    attempt = Attempt("doctor", Event("stripe", "doctor", "doctor", b"{}"), {}, 1, now, settings, lambda: None)
    try:
        stripe.list_events(attempt, (), int(now.timestamp()) - 60, int(now.timestamp()), "", everything=True)
    except HoldfastError as error:
        mend = "check the key, its right to read Events, and the way to STRIPE_API_BASE"
        return Finding(False, "STRIPE_API_KEY", str(error), mend)
    mode = "live" if "_live_" in settings.stripe_api_key[:8] else "test"
    return Finding(True, "STRIPE_API_KEY", f"works, a {mode} key")


def _reachable(what: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((host, port), WAIT_SECONDS).close()
    except OSError as error:
        words = f"{host}:{port} cannot be reached ({type(error).__name__})"
        return Finding(False, what, words, "is it up, and may this machine reach it?")
    return Finding(True, what, f"{host}:{port} answers")
