"""Search the record for events and dead letters, a bounded number of entries at a time. Read only.

No index is kept for searches: it would cost memory for every event that is remembered. One page scans at most `BUDGET`
entries and returns a cursor for the next page.
"""

from __future__ import annotations

import json
import time
from dataclasses import astuple, dataclass
from typing import Any, Literal

from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

BUDGET = 100  # entries per page; the store serves no other client meanwhile: 1 to 4 ms, more on a busy machine
SEARCH_SECONDS = 0.05
STATES = ("open", "succeeded", "dead", "discarded", "unhandled", "missed")


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions of a search; an empty one matches everything. Times are milliseconds since 1970: the time of
    arrival of an event, the time of death of a dead letter.

    `type` may end in `*`. The state `missed` matches events that were never delivered but found by a reconcile,
    whatever their jobs' states are. `text` is a part of the id, or of a dead letter's reason. `customer` is Stripe's
    customer id, or a task id of the document service; it matches by the jobs' ordering keys, so never an event without
    jobs.
    """

    source: str = ""
    type: str = ""
    state: str = ""
    text: str = ""
    customer: str = ""
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The rows found, how many entries were scanned, and the cursor of the next page (None after the last)."""

    rows: list[dict[str, Any]]
    scanned: int
    cursor: str | None


def find_page(store: Store, of: Literal["events", "dead"], criteria: Filter, limit: int, cursor: str = "") -> Page:
    """Scan up to BUDGET events or dead letters, the newest first, starting at the `cursor` of an earlier page."""
    flat = ["" if value is None else value for value in astuple(criteria)]
    scanned, following, *rows = store.find(of, cursor, BUDGET, limit, *flat)
    return Page([_parse_row(raw) for raw in rows], int(scanned), following.decode() or None)


def search(store: Store, of: Literal["events", "dead"], criteria: Filter, limit: int, cursor: str = "") -> Page:
    """Scan page by page until `limit` rows are found or SEARCH_SECONDS are over. The store serves other clients between
    two pages."""
    end = time.monotonic() + SEARCH_SECONDS
    rows: list[dict[str, Any]] = []
    scanned = 0
    while True:
        page = find_page(store, of, criteria, limit - len(rows), cursor)
        rows, scanned, cursor = rows + page.rows, scanned + page.scanned, page.cursor or ""
        if not cursor or len(rows) >= limit or time.monotonic() > end:
            return Page(rows, scanned, cursor or None)


def count_dead(store: Store, criteria: Filter) -> int:
    """How many dead letters lie within the filter's time span; the other conditions are ignored."""
    with translate_errors():
        return int(store.client.zcount(PREFIX + "dead", criteria.since or "-inf", criteria.until or "+inf"))


def _parse_row(raw: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(raw)
    return row | {name: int(row[name]) for name in ("received", "deliveries", "died") if name in row}
