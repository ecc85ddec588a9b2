"""Figures for people: rates, backlogs and ages. Each costs the same however much is stored. Changes nothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from inbox.memory_guard import NEARLY_FULL
from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

LAST_MS = 60_000
SAMPLE_NAMES = {b"owed": "unfinished", b"done": "succeeded"}  # as stored
FIRST = 50  # of a queue, to find the one that has waited longest: who was rung longest ago need not be it


def count_arrivals(store: Store, since_ms: int, until_ms: int, steps: int) -> list[int]:
    """How many events came in each of `steps` equal parts of a span of time."""
    width = (until_ms - since_ms) / steps
    edges = [since_ms + round(width * i) for i in range(steps + 1)]
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for first, last in itertools.pairwise(edges):
            pipe.zcount(PREFIX + "events", f"({first}", last)
        return [int(number) for number in pipe.execute()]


def pending_by_queue(store: Store, names: Sequence[str]) -> dict[str, tuple[int, int | None]]:
    """For each queue: jobs whose doorbell has rung, and since when (ms) the one that has waited longest was due."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zcard(f"{PREFIX}rung:{name}")
            pipe.zrange(f"{PREFIX}rung:{name}", 0, FIRST - 1)
        found: Any = pipe.execute()
    return {name: (int(found[2 * i]), _oldest(store, found[2 * i + 1])) for i, name in enumerate(names)}


def seconds_until_full(store: Store, now_ms: int) -> float:
    """Until events are refused for want of memory, should as many go on coming as in the last minute, or as much of it
    as they have come in. They keep their bytes for days, done or not. Infinite where none come, or no limit is set."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        pipe.info("memory")
        pipe.zcard(PREFIX + "events")
        pipe.zcount(PREFIX + "events", now_ms - LAST_MS, "+inf")
        pipe.zrange(PREFIX + "events", now_ms - LAST_MS, "+inf", byscore=True, offset=0, num=1, withscores=True)
        memory, events, came, first = pipe.execute()
    room = memory["maxmemory"] * NEARLY_FULL - memory["used_memory"]
    if not memory["maxmemory"] or not came:
        return math.inf
    bytes_each = memory["used_memory_dataset"] / events  # without the server's own
    seconds = max(1.0, (now_ms - first[0][1]) / 1000)
    return float(max(0.0, room / (bytes_each * came / seconds)))


def _oldest(store: Store, jobs: Sequence[bytes]) -> int | None:
    """The earliest due time among these jobs."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.hget(f"{PREFIX}job:{job.decode()}", "due")
        due: Any = pipe.execute()
    return min((int(ms) for ms in due if ms is not None), default=None)


def unfinished_by_queue(store: Store, names: Sequence[str]) -> dict[str, tuple[int, int | None]]:
    """For each queue: jobs not yet done, and since when (ms) the one that is owed the longest is to be done, however
    often it has failed; in the future where each of them is only planned."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zcard(f"{PREFIX}owed:{name}")
            pipe.zrange(f"{PREFIX}owed:{name}", 0, 0, withscores=True)
        found: Any = pipe.execute()
    return {name: (int(found[2 * i]), _first(found[2 * i + 1])) for i, name in enumerate(names)}


def _first(entries: Sequence[tuple[bytes, float]]) -> int | None:
    return int(entries[0][1]) if entries else None


def samples(store: Store, since_ms: int) -> list[dict[str, int]]:
    """The figures the sweep stored once a minute, for at most a day: `at` (ms); the number of jobs `unfinished`,
    `succeeded` and `dead`; `age` (ms) of the oldest unfinished job; and attempts `failed`, deliveries `rejected` and
    events `missed` since the record began."""
    with translate_errors():
        rows: Any = store.client.xrange(PREFIX + "samples", min=f"{since_ms}-0")
    return [{"at": int(name.split(b"-")[0]), **_sample(row)} for name, row in rows]


def _sample(row: Mapping[bytes, bytes]) -> dict[str, int]:
    return {SAMPLE_NAMES.get(name, name.decode()): int(value) for name, value in row.items()}
