"""How long the console's pages take with a large record and database: `python -m bench.console_pages`.

Each page is requested in process, without the network. Prints the median and the maximum in milliseconds, as in
docs/console.md.
"""

from __future__ import annotations

import gc
import time
from datetime import UTC, datetime, timedelta

from flask.testing import FlaskClient

from bench.contenders import holdfast_in
from bench.output import markdown_table, parse_arguments
from dev.sample_data import Clock, fill, fill_database
from inbox.store import Store, connect
from settings import load
from web import create_app

KEY = "a-key-to-measure-with"
DOCUMENTS, DEBTORS = 100_000, 20_000
PAGES = {
    "overview": "",
    "overview, 24 hours": "?span=24h",
    "events": "events",
    "events of ten days ago": f"events?until={datetime.now(UTC) - timedelta(days=10):%Y-%m-%dT%H:%M}",
    "events of a type": "events?type=invoice.paid",
    "events that are dead": "events?state=dead",
    "events of one customer": "events?customer=cus_4",
    "events of which none matches": "events?type=none",
    "one event, by its whole id": "events/stripe/evt_00000999",
    "dead letters": "dead",
    "dead letters of one customer": "dead?customer=cus_4",
    f"documents ({DOCUMENTS})": "documents",
    f"subscriptions ({DEBTORS} in dunning)": "subscriptions",
    "agents": "agents",
    "sources": "sources",
    "audit": "audit",
}


def main() -> None:
    arguments = parse_arguments("bench.console_pages", events=1_000_000, times=20)
    with holdfast_in("pages") as ours:
        clock = Clock()
        store = Store(connect(ours.valkey.url, timeout_seconds=60), now_ms=clock)
        store.client.config_set("appendfsync", "no")
        fill(store, clock, range(arguments.events), int(time.time() * 1000))
        fill_database(ours.environment()["DATABASE_URL"], DOCUMENTS, DEBTORS)
        client = create_app(load({**ours.environment(), "API_KEYS": KEY})).test_client()
        gc.collect()
        gc.freeze()  # as the receiver does
        client.post("/console/sign-in", data={"key": KEY})
        print(markdown_table(("page", "p50", f"worst of {arguments.times}"), _rows(client, arguments.times)))


def _rows(client: FlaskClient, times: int) -> list[list[str]]:
    rows = []
    for name, path in PAGES.items():
        _ms(client, path)  # compiles the template
        found = sorted(_ms(client, path) for _ in range(times))
        rows.append([name, f"{found[len(found) // 2]:.0f}", f"{found[-1]:.0f}"])
    return rows


def _ms(client: FlaskClient, path: str) -> float:
    began = time.perf_counter()
    status = client.get(f"/console/{path}").status_code
    if status != 200:
        raise SystemExit(f"/console/{path} returned {status}")
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
