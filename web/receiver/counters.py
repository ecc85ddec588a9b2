"""Figures of the event loop, written down once a second: no sender waits for one, and who dies takes a second along."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

from inbox.errors import StoreUnavailable
from inbox.store import Store
from web.receiver.rejection_log import RejectionLog

EVERY_SECONDS = 1.0
ACK_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000)
BUCKETS = [f"ack:{upto}" for upto in (*ACK_MS, "inf")]
UNPROVEN = ("signature", "timestamp", "mode")  # no stranger's noise: a secret, a clock or an endpoint may be wrong


def rejection_counts(source: str, reason: str) -> dict[str, int]:
    """What a refused webhook adds to the counts."""
    unproven = {f"unproven:{source}": 1} if reason in UNPROVEN else {}
    return {f"rejected:{source}:{reason}": 1, **unproven}


class BufferedCounters:
    """Used from one event loop. What the store does not take now it is told when it is back."""

    def __init__(self, store: Store) -> None:
        self._store, self._rejection_log = store, RejectionLog()
        self._counts: Counter[str] = Counter()
        self._writer: asyncio.Task[None] | None = None

    def count_rejection(self, source: str, reason: str) -> None:
        """A webhook was refused."""
        self._rejection_log.log(source, reason, time.monotonic())
        self._counts.update(rejection_counts(source, reason))
        self._soon()

    def count_ack(self, seconds: float) -> None:
        """A webhook was answered 200, so long after its head had come."""
        self._counts[BUCKETS[bisect_left(ACK_MS, seconds * 1000)]] += 1
        self._counts["ack:us"] += round(seconds * 1_000_000)
        self._soon()

    def _soon(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_soon())

    async def _write_soon(self) -> None:
        while self._counts:
            await asyncio.sleep(EVERY_SECONDS)
            counts, self._counts = self._counts, Counter()
            if not await asyncio.get_running_loop().run_in_executor(None, self._written, counts):
                self._counts.update(counts)
        self._writer = None

    def _written(self, counts: Mapping[str, int]) -> bool:
        try:
            self._store.count(counts)
        except StoreUnavailable:
            return False
        return True
