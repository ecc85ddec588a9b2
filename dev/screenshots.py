"""Pictures of every page of the console, light, dark and on a phone, on a store that is filled for it: to be looked at.

    python -m dev.screenshots var/screenshots
    python -m dev.screenshots var/screenshots --docs    and renews those in docs/

It takes a Chromium: `playwright install chromium`, or the system's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, Playwright, sync_playwright
from sqlalchemy import insert

from dev.fill import KINDS, Clock, fill
from dev.pages import debts
from dev.stack.servers import Valkey, free_port, wait_until
from inbox.event import Event
from inbox.job import Lease
from inbox.retry import Bury, RetryAt
from inbox.store import PREFIX, Store, connect
from tasks.db.engine import make_engine
from tasks.models import Agent, Document, PaymentGrace, PaymentRetry
from tasks.routes import QUEUES, jobs_for

KEY = "a-key-to-look-with-0123"
EVENTS = 4000
LOOKS: Mapping[str, tuple[str, dict[str, int]]] = {
    "light": ("light", {"width": 1200, "height": 800}),
    "dark": ("dark", {"width": 1200, "height": 800}),
    "phone": ("light", {"width": 390, "height": 844}),
}
PAGES = {
    "overview": "",
    "events": "events",
    "event": "events/stripe/evt_shown",
    "dead": "dead",
    "dry-run": "replays/new?type=invoice.*",
    "documents": "documents",
    "subscriptions": "subscriptions",
    "agents": "agents",
    "sources": "sources",
    "audit": "audit",
}
DOCS = {
    ("overview", "light"): "console-overview",
    ("event", "light"): "console-event",
    ("dead", "phone"): "console-phone",
}
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")


def browser(playwright: Playwright) -> Browser:
    """Playwright's own, or the system's."""
    own = Path(playwright.chromium.executable_path).exists()
    path = None if own else shutil.which("chromium") or shutil.which("google-chrome")
    return playwright.chromium.launch(executable_path=path, args=FLAGS)


def populate(store: Store, clock: Clock) -> None:
    """Weeks of events, an hour that the plots show, and one event with a story."""
    now = int(time.time() * 1000)
    fill(store, clock, EVENTS, now - 3_700_000)
    for queue in QUEUES:
        owed: Any = store.client.zrange(f"{PREFIX}owed:{queue}", 0, -1)
        for job in owed:
            _done(store, store.lease(job.decode(), "worker-1/12", 60))
    for minute in range(60):
        clock.ms = now - (60 - minute) * 60_000
        for n in range(minute * 7 % 11 + 2):
            _one(store, f"evt_{minute}_{n}", KINDS[n % 4], fails=n % 5 == 4)
        store.count({"rejected:stripe:signature": minute % 3})
        store.sweep(200, {})
    _story(store, clock, now)
    clock.ms = now
    store.sweep(200, {})


def _done(store: Store, lease: Lease | str) -> None:
    if isinstance(lease, Lease):
        store.finish(lease)


def _one(store: Store, name: str, kind: str, *, fails: bool) -> None:
    jobs = jobs_for("stripe", name, kind, f"stripe:cus_{name}")
    store.record(Event("stripe", name, kind, b"{}"), jobs, "a1b2c3d4")
    lease = store.lease(jobs[0].id, "worker-1/12", 60, "a-celery-task")
    if isinstance(lease, Lease) and fails:
        store.fail(lease, "Stripe answered 503", RetryAt(lease.received_ms + 7_200_000))
    else:
        _done(store, lease)


def _story(store: Store, clock: Clock, now: int) -> None:
    """It came twice, failed twice, and for good."""
    body = b'{"id": "evt_shown", "type": "invoice.paid", "data": {"object": {"id": "in_1", "customer": "cus_1",'
    body += b' "customer_email": "ada@example.com", "amount_due": 1900, "description": "for ada@example.com"}}}'
    jobs = jobs_for("stripe", "evt_shown", "invoice.paid", "stripe:cus_1")
    for minutes in (50, 45):
        clock.ms = now - minutes * 60_000
        store.record(Event("stripe", "evt_shown", "invoice.paid", body), jobs, "a1b2c3d4")
    for minutes in (44, 40, 30):
        clock.ms = now - minutes * 60_000
        lease = store.lease(jobs[0].id, "worker-1/12", 60, "a-celery-task")
        clock.ms += 800
        if isinstance(lease, Lease) and minutes > 30:
            store.fail(lease, "Stripe answered 503", RetryAt(clock.ms))
        elif isinstance(lease, Lease):
            store.fail(lease, "the invoice has no customer", Bury("permanent"))


def vary(url: str, now: datetime) -> None:
    """Some rows of each kind of trouble and of work under way, among the many that are alike."""
    engine = make_engine(url)
    with engine.begin() as db:
        for name, progress in (("submitting", 0), ("processing", 40), ("downloading", 75), ("failed", 40)):
            title, at = f"contract-{progress}-{name}", now + timedelta(minutes=1)
            row = {"id": f"doc_{name}", "document_id": f"{title}.pdf", "status": name, "progress": progress}
            db.execute(insert(Document), [row | {"created_at": at, "updated_at": at}])
        due, tried = now + timedelta(hours=20), {"state": "declined", "decline_code": "expired_card", "done_at": now}
        for number, more in ((1, tried), (2, {"state": "planned"})):
            db.execute(insert(PaymentRetry), [{"invoice": "in_0", "number": number, "due_at": due} | more])
        db.execute(insert(PaymentGrace), [{"invoice": "in_1", "number": 1, "state": "planned", "due_at": due}])
        troubled: dict[str, Any] = {"failures": 3, "failing_since": now, "last_answer": "503"}
        for name, trouble in (("crm", {}), ("search", troubled)):
            agent = {"id": f"ag_{name}", "name": name, "url": f"https://{name}.example/in", "rate_per_minute": 60}
            db.execute(insert(Agent), [agent | trouble])
    engine.dispose()


@contextmanager
def receiver(valkey: str, database: str) -> Iterator[str]:
    """The address of a receiver on these stores."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"REDIS_URL": valkey, "DATABASE_URL": database, "API_KEYS": KEY, "PORT": str(port)}
    secrets = {"STRIPE_WEBHOOK_SECRET": "whsec_to_look_at", "ALERT_NOTIFY_URLS": "off"}
    process = subprocess.Popen([sys.executable, "-m", "web"], env={**os.environ, **environment, **secrets})
    try:
        wait_until(lambda: _answers(url), seconds=60, what="the receiver")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _now(store: Store, clock: Clock) -> None:
    """As if a worker were at work."""
    clock.ms = int(time.time() * 1000)
    _one(store, f"evt_{clock.ms}", "invoice.paid", fails=False)
    store.sweep(200, {})


def _replay(url: str) -> None:
    """So that the audit trail has something to tell."""
    headers = {"Authorization": f"Bearer {KEY}"}
    dead = requests.get(f"{url}/api/v1/jobs?state=dead&limit=3", headers=headers, timeout=10).json()["jobs"]
    for job in dead[1:]:
        requests.post(f"{url}/api/v1/jobs/{job['id']}/replay", headers=headers, timeout=10).raise_for_status()


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/livez", timeout=1).ok
    except requests.RequestException:
        return False


def take(url: str, folder: Path, fresh: Callable[[], object]) -> None:
    """One picture of each page in each look."""
    with sync_playwright() as playwright:
        chromium = browser(playwright)
        for look, (scheme, size) in LOOKS.items():
            context = chromium.new_context(base_url=url, color_scheme=scheme, viewport=size)  # type: ignore[arg-type]
            page = context.new_page()
            page.goto("/console/")
            page.screenshot(path=folder / f"sign-in-{look}.png")
            page.get_by_label("API key").fill(KEY)
            page.keyboard.press("Enter")
            page.get_by_role("heading", name="Overview").wait_for()
            for name, path in PAGES.items():
                fresh()
                page.goto(f"/console/{path}")
                page.screenshot(path=folder / f"{name}-{look}.png")
            context.close()
        chromium.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true", help="renew the pictures of the README")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        server, clock = Valkey(Path(scratch)).start(), Clock()
        database = f"sqlite:///{scratch}/rows.db"
        try:
            store = Store(connect(server.url, timeout_seconds=60), now_ms=clock)
            populate(store, clock)
            debts(database)
            vary(database, datetime.now(UTC))
            with receiver(server.url, database) as url:
                _replay(url)
                take(url, asked.folder, lambda: _now(store, clock))
        finally:
            server.stop()
    for (name, look), picture in DOCS.items() if asked.docs else ():
        shutil.copy(asked.folder / f"{name}-{look}.png", Path("docs") / f"{picture}.png")


if __name__ == "__main__":
    main()
