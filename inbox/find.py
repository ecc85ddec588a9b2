"""Searching the record: events and dead letters that match, a bounded stretch at a time. Changes nothing.

There is no index for it, which would cost memory for every event ever remembered. One step looks through `BUDGET`
entries and says where to go on.
"""

from __future__ import annotations

import json
import time
from dataclasses import astuple, dataclass
from typing import Any, Literal

from inbox.roundtrip import translated
from inbox.store import PREFIX, Store

BUDGET = 100  # entries in one step, during which the store serves nobody else: 1 to 4 ms, more on a busy machine
SEARCH_SECONDS = 0.05
STATES = ("open", "succeeded", "dead", "discarded", "unhandled", "missed")


@dataclass(frozen=True, slots=True)
class Filter:
    """What to match; what is empty matches all. Times in ms since 1970: of arrival, or of death for dead letters.

    `type` may end in `*`. The `state` missed is of events that never arrived and were found at their sender, whatever
    became of them since. `text` is part of the id, or of a dead letter's reason. `customer` is Stripe's id of one, or
    the document service's of a task: of jobs only, for what nobody handles belongs to nobody.
    """

    source: str = ""
    type: str = ""
    state: str = ""
    text: str = ""
    customer: str = ""
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step found, how many entries it looked through, and where to go on (None: it came to the end)."""

    rows: list[dict[str, Any]]
    looked: int
    place: str | None


def step(store: Store, of: Literal["events", "dead"], wanted: Filter, most: int, place: str = "") -> Step:
    """One step through the events or the dead letters, the newest first; from `place` on, which an earlier one gave."""
    flat = ["" if value is None else value for value in astuple(wanted)]
    looked, on, *rows = store.find(of, place, BUDGET, most, *flat)
    return Step([_row(raw) for raw in rows], int(looked), on.decode() or None)


def search(store: Store, of: Literal["events", "dead"], wanted: Filter, most: int, place: str = "") -> Step:
    """Step after step until `most` rows are found or SEARCH_SECONDS are over; between two of them others are served."""
    end = time.monotonic() + SEARCH_SECONDS
    rows: list[dict[str, Any]] = []
    looked = 0
    while True:
        found = step(store, of, wanted, most - len(rows), place)
        rows, looked, place = rows + found.rows, looked + found.looked, found.place or ""
        if not place or len(rows) >= most or time.monotonic() > end:
            return Step(rows, looked, place or None)


def count_dead(store: Store, wanted: Filter) -> int:
    """How many dead letters a search goes through if nobody ends it: those of the filter's span of time."""
    with translated():
        return int(store.client.zcount(PREFIX + "dead", wanted.since or "-inf", wanted.until or "+inf"))


def _row(raw: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(raw)
    return row | {name: int(row[name]) for name in ("received", "deliveries", "died") if name in row}
