"""Search the record for events and jobs, a bounded number of entries at a time. Read only.

No index is kept for searches: it would cost memory for every event that is remembered. One page scans at most `BUDGET`
entries and returns a cursor for the next page.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from inbox.job import JobState, StoredState
from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

BUDGET = 100  # entries per page; the store serves no other client meanwhile: 1 to 4 ms, more on a busy machine
SEARCH_SECONDS = 0.05
STATES = ("open", "succeeded", "dead", "discarded", "unhandled", "missed")  # of events
LIST_NUMBER = re.compile(r"[0-9]{1,3}/")  # begins the cursor of a search through several lists

EARLIER = "later"  # the set of earlier versions: see scripts/common.lua

# Where the jobs of a state are: pending ones in lists of each queue (see _lists), finished ones only by their events.
LISTS: Mapping[str, Sequence[str]] = {
    "events": ["events"],
    JobState.SCHEDULED: ["scheduled"],
    JobState.RUNNING: ["running", EARLIER],
    JobState.DEAD: ["dead"],
    JobState.SUCCEEDED: ["events"],
    JobState.DISCARDED: ["events"],
}
# The stored code of a job's state, and whether its due time is past or future ("": either).
CODES: Mapping[str, tuple[str, str]] = {
    JobState.PENDING: (StoredState.PENDING, "past"),
    JobState.SCHEDULED: (StoredState.PENDING, "future"),
    JobState.RUNNING: (StoredState.RUNNING, ""),
    **{state: (StoredState(state), "") for state in (JobState.SUCCEEDED, JobState.DEAD, JobState.DISCARDED)},
}


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions of a search; an empty one matches everything. Times are milliseconds since 1970: the time of
    arrival of an event or of a finished job's event, the time of death of a dead letter, the due time of another job.

    `type` may end in `*`. `state` is one of STATES, for events only; `missed` matches events that were never delivered
    but found by a reconcile, whatever their jobs' states are. `text` is a part of the id, or of a job's reason.
    `customer` is Stripe's customer id, or a task id of the document service; it matches by the jobs' ordering keys, so
    never an event without jobs.
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


def find_page(store: Store, of: str, criteria: Filter, limit: int, cursor: str = "") -> Page:
    """Scan up to BUDGET entries, starting at the `cursor` of an earlier page.

    `of` is "events" or the state of the jobs to find. Events and dead letters come newest first, unfinished jobs in
    the order of their due times. A page may exceed `limit` by the other jobs of its last event.
    """
    lists = _lists(store, of)
    number, position = _parse_cursor(cursor)
    if number >= len(lists):
        return Page([], 0, None)
    stored, when = CODES.get(of, ("", ""))
    flat = ["" if value is None else value for value in astuple(criteria)]
    scanned, end, *rows = store.find(lists[number], stored, when, position, BUDGET, limit, *flat)
    if end:
        following = f"{number}/{end.decode()}" if number else end.decode()
    else:
        following = f"{number + 1}/" if number + 1 < len(lists) else None
    return Page([_parse_row(raw) for raw in rows], int(scanned), following)


def search(store: Store, of: str, criteria: Filter, limit: int, cursor: str = "") -> Page:
    """As `find_page`, page by page until `limit` rows are found or SEARCH_SECONDS are over. The store serves other
    clients between two pages."""
    end = time.monotonic() + SEARCH_SECONDS
    rows: list[dict[str, Any]] = []
    scanned = 0
    while True:
        page = find_page(store, of, criteria, limit - len(rows), cursor)
        rows, scanned, cursor = rows + page.rows, scanned + page.scanned, page.cursor or ""
        if not cursor or len(rows) >= limit or time.monotonic() > end:
            return Page(rows, scanned, cursor or None)


def _parse_cursor(cursor: str) -> tuple[int, str]:
    """The number of the list, and the position in it that scripts/find.lua returned."""
    if not LIST_NUMBER.match(cursor):
        return 0, cursor
    number, _, position = cursor.partition("/")
    return int(number), position


def _lists(store: Store, of: str) -> Sequence[str]:
    """The sorted sets in which to look, in this order."""
    if of in LISTS:
        return LISTS[of]
    with translate_errors():
        queues: Any = store.client.smembers(PREFIX + "queues")
    of_each = [f"{kind}:{queue.decode()}" for queue in sorted(queues) for kind in ("rung", "blocked", "later")]
    return [*of_each, EARLIER]


def count_dead(store: Store, criteria: Filter) -> int:
    """How many dead letters lie within the filter's time span; the other conditions are ignored."""
    with translate_errors():
        return int(store.client.zcount(PREFIX + "dead", criteria.since or "-inf", criteria.until or "+inf"))


def _parse_row(raw: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(raw)
    return row | {name: int(row[name]) for name in ("received", "deliveries", "died", "due") if name in row}
