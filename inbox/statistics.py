"""Figures for people: rates, backlogs and ages. The cost of each does not depend on how much is stored. Read only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from inbox.memory_guard import NEARLY_FULL
from inbox.roundtrip import translate_errors
from inbox.store import PREFIX, Store

MINUTE_MS = 60_000
SAMPLE_NAMES = {b"owed": "unfinished", b"done": "succeeded"}  # as stored
OLDEST_RUNG = 50  # jobs of a queue among which the longest due is found: it need not be the one rung first


def count_arrivals(store: Store, since_ms: int, until_ms: int, steps: int) -> list[int]:
    """The number of events that arrived in each of `steps` equal parts of a time span."""
    width = (until_ms - since_ms) / steps
    edges = [since_ms + round(width * i) for i in range(steps + 1)]
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for first, last in itertools.pairwise(edges):
            pipe.zcount(PREFIX + "events", f"({first}", last)
        return [int(number) for number in pipe.execute()]


def pending_by_queue(store: Store, names: Sequence[str]) -> dict[str, tuple[int, int | None]]:
    """For each queue: the number of jobs whose doorbell has been rung, and the earliest due time (ms) among them."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zcard(f"{PREFIX}rung:{name}")
            pipe.zrange(f"{PREFIX}rung:{name}", 0, OLDEST_RUNG - 1)
        found: Any = pipe.execute()
    return {name: (int(found[2 * i]), _oldest(store, found[2 * i + 1])) for i, name in enumerate(names)}


def seconds_until_full(store: Store, now_ms: int) -> float:
    """Seconds until events are rejected for lack of memory, at the rate of the last minute (or since the first event in
    it). Assumes that no memory is freed, because payloads stay for days. Infinite without events or without a limit."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        pipe.info("memory")
        pipe.zcard(PREFIX + "events")
        pipe.zcount(PREFIX + "events", now_ms - MINUTE_MS, "+inf")
        pipe.zrange(PREFIX + "events", now_ms - MINUTE_MS, "+inf", byscore=True, offset=0, num=1, withscores=True)
        memory, events, recent, first = pipe.execute()
    free = memory["maxmemory"] * NEARLY_FULL - memory["used_memory"]
    if not memory["maxmemory"] or not recent:
        return math.inf
    bytes_each = memory["used_memory_dataset"] / events  # without the server's own overhead
    seconds = max(1.0, (now_ms - first[0][1]) / 1000)
    return float(max(0.0, free / (bytes_each * recent / seconds)))


def _oldest(store: Store, jobs: Sequence[bytes]) -> int | None:
    """The earliest due time among these jobs."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for job in jobs:
            pipe.hget(f"{PREFIX}job:{job.decode()}", "due")
        due: Any = pipe.execute()
    return min((int(ms) for ms in due if ms is not None), default=None)


def unfinished_by_queue(store: Store, names: Sequence[str]) -> dict[str, tuple[int, int | None]]:
    """For each queue: the number of unfinished jobs, and the earliest time (ms) at which one of them was first due,
    retries included; in the future if all are delayed."""
    with translate_errors(), store.client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zcard(f"{PREFIX}owed:{name}")
            pipe.zrange(f"{PREFIX}owed:{name}", 0, 0, withscores=True)
        found: Any = pipe.execute()
    return {name: (int(found[2 * i]), _first_score(found[2 * i + 1])) for i, name in enumerate(names)}


def with_unknown_queues(store: Store, names: Sequence[str]) -> list[str]:
    """These queues, and those of other versions that have unfinished jobs."""
    with translate_errors():
        found: Any = store.client.smembers(PREFIX + "queues")
    others = sorted({name.decode() for name in found} - set(names))
    unfinished = unfinished_by_queue(store, others) if others else {}
    return [*names, *(name for name in others if unfinished[name][0])]


def _first_score(entries: Sequence[tuple[bytes, float]]) -> int | None:
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
