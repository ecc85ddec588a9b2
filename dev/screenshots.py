"""Takes pictures of every console page with sample data, in light, dark and phone size.

    python -m dev.screenshots var/screenshots
    python -m dev.screenshots var/screenshots --docs    also replaces those in docs/

Needs a Chromium: `playwright install chromium`, or the system's.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import sync_playwright
from werkzeug.serving import make_server

from dev.sample_data import Clock, fill, fill_database, insert_rows
from dev.stack.servers import Valkey
from inbox.event import Event
from inbox.job import Lease
from inbox.retry import DeadLetter, RetryAt
from inbox.store import PREFIX, Store, connect
from settings import load
from tasks.models import Agent, Document, PaymentGrace, PaymentRetry
from tasks.routes import QUEUES, jobs_for
from web import create_app

KEY = "a-key-to-look-with-0123"
VIEWS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1200, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1200, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}
PAGES = {
    "overview": "",
    "event": "events/stripe/evt_shown",
    "dry-run": "replays/new?type=invoice.*",
    **{name: name for name in ("events", "dead", "documents", "subscriptions", "agents", "sources", "audit")},
}
DOCS = {"overview-light": "console-overview", "event-light": "console-event", "dead-phone": "console-phone"}
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")
SHOWN = b"""{"id": "evt_shown", "type": "invoice.paid", "data": {"object": {"id": "in_1", "customer": "cus_1",
"customer_email": "ada@example.com", "amount_due": 1900, "description": "for ada@example.com"}}}"""


def fill_record(store: Store, clock: Clock) -> None:
    """Weeks of events, an hour of events for the plots, and SHOWN."""
    now = int(time.time() * 1000)
    fill(store, clock, range(4000), now - 3_600_000)
    for minute in range(60):
        numbers = range(4000 + 12 * minute, 4002 + 12 * minute + minute * 7 % 11)
        fill(store, clock, numbers, now - (59 - minute) * 60_000, 60_000)
        store.count({"rejected:stripe:signature": minute % 3})
        store.sweep(200, {})
    for queue in QUEUES:
        unfinished: Any = store.client.zrange(f"{PREFIX}owed:{queue}", 0, -1)
        for job in unfinished:
            lease = store.lease(job.decode(), "worker-1/12", 60)
            if isinstance(lease, Lease):
                store.finish(lease)
    record_shown_event(store, clock, now)


def record_shown_event(store: Store, clock: Clock, now: int) -> None:
    """Delivered twice; its first job fails three times, at last for good."""
    jobs = jobs_for("stripe", "evt_shown", "invoice.paid", "stripe:cus_1")
    for minutes in (50, 45):
        clock.ms = now - minutes * 60_000
        store.record(Event("stripe", "evt_shown", "invoice.paid", SHOWN), jobs, "a1b2c3d4")
    unavailable = "Stripe answered 503"
    for minutes, error in ((44, unavailable), (40, unavailable), (30, "the invoice has no customer")):
        clock.ms = now - minutes * 60_000
        lease = store.lease(jobs[0].id, "worker-1/12", 60, "a-celery-task")
        assert isinstance(lease, Lease)
        clock.ms += 800
        store.fail(lease, error, RetryAt(clock.ms) if error == unavailable else DeadLetter("permanent"))


def add_rows(url: str, now: datetime) -> None:
    """Documents, subscriptions and agents in every state."""
    fill_database(url, documents=200, debtors=50)
    progress, at = {"submitting": 0, "processing": 40, "downloading": 75, "failed": 40}, now + timedelta(minutes=1)
    documents = [
        {"id": f"doc_{status}", "document_id": f"contract-{status}.pdf", "status": status, "progress": percent}
        | {"created_at": at, "updated_at": at}
        for status, percent in progress.items()
    ]
    due, tried = now + timedelta(hours=20), {"state": "declined", "decline_code": "expired_card", "done_at": now}
    retry, failing = {"invoice": "in_0", "due_at": due}, {"failures": 3, "failing_since": now, "last_answer": "503"}
    agents = [{"id": f"ag_{name}", "name": name, "url": f"https://{name}.example/in"} for name in ("crm", "search")]
    insert_rows(url, Document, documents)
    insert_rows(url, PaymentRetry, [retry | {"number": 1} | tried])
    insert_rows(url, PaymentRetry, [retry | {"number": 2, "state": "planned"}])
    insert_rows(url, PaymentGrace, [{"invoice": "in_1", "number": 1, "state": "planned", "due_at": due}])
    insert_rows(url, Agent, [agents[0] | {"rate_per_minute": 60}])
    insert_rows(url, Agent, [agents[1] | {"rate_per_minute": 60} | failing])


def serve_console(valkey: str, database: str, stack: ExitStack) -> str:
    """Serve the API and the console in a thread until `stack` stops it; returns the URL."""
    stores = {"REDIS_URL": valkey, "DATABASE_URL": database}
    secrets = {"API_KEYS": KEY, "STRIPE_WEBHOOK_SECRET": "whsec_to_look_at", "ALERT_NOTIFY_URLS": "off"}
    server = make_server("127.0.0.1", 0, create_app(load(stores | secrets)), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    return f"http://127.0.0.1:{server.port}"


def replay_some(url: str) -> None:
    """Adds entries to the audit log."""
    headers = {"Authorization": f"Bearer {KEY}"}
    dead = requests.get(f"{url}/api/v1/jobs?state=dead&limit=3", headers=headers, timeout=10).json()["jobs"]
    for job in dead[1:]:
        requests.post(f"{url}/api/v1/jobs/{job['id']}/replay", headers=headers, timeout=10).raise_for_status()


def take(url: str, folder: Path, before_each: Callable[[], object]) -> None:
    """A picture of each page in each view, by Playwright's Chromium or the system's."""
    with sync_playwright() as playwright:
        installed = Path(playwright.chromium.executable_path).exists()
        path = None if installed else shutil.which("chromium") or shutil.which("google-chrome")
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        for view, options in VIEWS.items():
            context = chromium.new_context(base_url=url, **options)
            page = context.new_page()
            page.goto("/console/")
            page.screenshot(path=folder / f"sign-in-{view}.png")
            page.get_by_label("API key").fill(KEY)
            page.keyboard.press("Enter")
            page.get_by_role("heading", name="Overview").wait_for()
            for name, path in PAGES.items():
                before_each()
                page.goto(f"/console/{path}")
                page.screenshot(path=folder / f"{name}-{view}.png")
            context.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.screenshots")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", action="store_true", help="replace the pictures in docs/")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        valkey, clock, database = Valkey(Path(scratch)).start(), Clock(), f"sqlite:///{scratch}/rows.db"
        stack.callback(valkey.stop)
        store = Store(connect(valkey.url, timeout_seconds=60), now_ms=clock)

        def sweep() -> None:
            """Without a recent sweep the console reports that no worker is running."""
            clock.ms = int(time.time() * 1000)
            store.sweep(200, {})

        fill_record(store, clock)
        add_rows(database, datetime.now(UTC))
        url = serve_console(valkey.url, database, stack)
        replay_some(url)
        take(url, arguments.folder, sweep)
    for picture, name in DOCS.items() if arguments.docs else ():
        shutil.copy(arguments.folder / f"{picture}.png", Path("docs") / f"{name}.png")


if __name__ == "__main__":
    main()
