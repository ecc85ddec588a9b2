"""How long each page of the console takes on a store that dev/fill.py has filled, with many documents and debtors.

    python -m dev.pages redis://127.0.0.1:6390/0

Each page is asked for as the receiver serves it, without the network; it prints the median and the worst, in ms.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask.testing import FlaskClient
from sqlalchemy import insert

from settings import Settings, load
from tasks.db.engine import make_engine
from tasks.db.migrate import upgrade
from tasks.models import Document, Invoice, Subscription
from web import create_app

KEY = "a-key-to-measure-with"
DOCUMENTS, DEBTORS = 100_000, 20_000
NOW = datetime.now(UTC)

PAGES = {
    "overview": "",
    "overview, 24 hours": "?span=24h",
    "events": "events",
    "events of ten days ago": f"events?until={NOW - timedelta(days=10):%Y-%m-%dT%H:%M}",
    "events of a type": "events?type=invoice.paid",
    "events that are dead": "events?state=dead",
    "events of one customer": "events?customer=cus_4",
    "events of which none matches": "events?type=none",
    "one event, by its whole id": "events/stripe/evt_00999999",
    "dead letters": "dead",
    "dead letters of one customer": "dead?customer=cus_4",
    "documents (100000)": "documents",
    "subscriptions (20000 in dunning)": "subscriptions",
    "agents": "agents",
    "sources": "sources",
    "audit": "audit",
}


def measured(settings: Settings, times: int) -> Iterator[tuple[str, float, float]]:
    """Each page with the median and the worst of `times`, in ms."""
    client = create_app(settings).test_client()
    gc.collect()
    gc.freeze()  # as the receiver does
    client.post("/console/sign-in", data={"key": KEY})
    for name, path in PAGES.items():
        _ms(client, path)  # which makes the template
        took = sorted(_ms(client, path) for _ in range(times))
        yield name, took[len(took) // 2], took[-1]


def _ms(client: FlaskClient, path: str) -> float:
    began = time.perf_counter()
    status = client.get(f"/console/{path}").status_code
    if status != 200:
        raise SystemExit(f"/console/{path} answered {status}; is the store filled? python -m dev.fill")
    return (time.perf_counter() - began) * 1000


def debts(url: str, documents: int = DOCUMENTS, debtors: int = DEBTORS) -> None:
    """Rows for the pages that show the database."""
    upgrade(url)
    engine = make_engine(url)
    with engine.begin() as db:
        db.execute(insert(Document), [_document(n) for n in range(documents)])
        db.execute(insert(Subscription), [_subscription(n) for n in range(debtors)])
        db.execute(insert(Invoice), [_invoice(n) for n in range(debtors)])
    engine.dispose()


def _document(n: int) -> dict[str, object]:
    at = NOW - timedelta(seconds=n)
    return {"id": f"doc_{n}", "document_id": f"{n}.pdf", "status": "completed", "created_at": at, "updated_at": at}


def _subscription(n: int) -> dict[str, object]:
    return {"id": f"sub_{n}", "customer": f"cus_{n}", "status": "past_due", "updated_at": NOW - timedelta(seconds=n)}


def _invoice(n: int) -> dict[str, object]:
    names = {"id": f"in_{n}", "customer": f"cus_{n}", "subscription": f"sub_{n}", "state": "open", "seen_event": "e"}
    return names | {
        "amount_due": 1900,
        "amount_remaining": 1900,
        "renews": True,
        "sent": False,
        "currency": "eur",
        "last_try": False,
        "created": n,
        "seen_created": n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.pages", description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--times", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{Path(folder) / 'rows.db'}"
        debts(database)
        settings = load({"REDIS_URL": asked.url, "DATABASE_URL": database, "API_KEYS": KEY})
        for name, median, worst in measured(settings, asked.times):
            print(f"| {name} | {median:.0f} | {worst:.0f} |")


if __name__ == "__main__":
    main()
