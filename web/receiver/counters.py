"""Counters of the event loop, written to the store once a second: a crash loses at most the last second of them."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from inbox.errors import StoreUnavailable
from inbox.store import Store
from web.receiver.rejection_log import RejectionLog

FLUSH_SECONDS = 1.0
ACK_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000)
BUCKETS = [f"ack:{upper}" for upper in (*ACK_MS, "inf")]
UNPROVEN = ("signature", "timestamp", "mode")  # reasons that indicate misconfiguration rather than random traffic


def rejection_counts(source: str, reason: str) -> dict[str, int]:
    """The stored counters that one rejected webhook increments."""
    unproven = {f"unproven:{source}": 1} if reason in UNPROVEN else {}
    return {f"rejected:{source}:{reason}": 1, **unproven}


class BufferedCounters:
    """Used from one event loop. While the store is unavailable the counts are kept."""

    def __init__(self, store: Store) -> None:
        self._store, self._rejection_log = store, RejectionLog()
        self.flush_seconds = FLUSH_SECONDS
        self._counts: Counter[str] = Counter()
        self._flusher: asyncio.Task[None] | None = None

    def count_rejection(self, source: str, reason: str) -> None:
        """Count and log a rejected webhook; `reason` is one of web.errors.REASONS."""
        self._rejection_log.log(source, reason, time.monotonic())
        self._counts.update(rejection_counts(source, reason))
        self._schedule_flush()

    def count_ack(self, seconds: float) -> None:
        """Count a webhook that was answered 200, `seconds` after its head arrived."""
        self._counts[BUCKETS[bisect_left(ACK_MS, seconds * 1000)]] += 1
        self._counts["ack:us"] += round(seconds * 1_000_000)
        self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush_later())

    async def _flush_later(self) -> None:
        while self._counts:
            await asyncio.sleep(self.flush_seconds)
            await self.flush()
        self._flusher = None

    async def flush(self) -> None:
        """Write the counts now; keep them if the store is unavailable."""
        counts, self._counts = self._counts, Counter()
        if counts and not await asyncio.get_running_loop().run_in_executor(None, self._write, counts):
            self._counts.update(counts)

    def _write(self, counts: Mapping[str, int]) -> bool:
        try:
            self._store.count(counts)
        except StoreUnavailable:
            return False
        return True
