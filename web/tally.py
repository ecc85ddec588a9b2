"""Figures of the event loop, written down once a second: no sender waits for one, and who dies takes a second along."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from inbox.errors import StoreUnavailable
from inbox.store import Store

EVERY_SECONDS = 1.0
ACK_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2000)


class Tally:
    """Used from one event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: Counter[str] = Counter()

    def refused(self, source: str, reason: str) -> None:
        """A webhook was refused."""
        self._add({f"rejected:{source}:{reason}": 1})

    def acknowledged(self, seconds: float) -> None:
        """A webhook was answered 200, so long after its head had come."""
        upto = next((ms for ms in ACK_MS if seconds * 1000 <= ms), "inf")
        self._add({f"ack:{upto}": 1, "ack:us": round(seconds * 1_000_000)})

    def _add(self, counts: Mapping[str, int]) -> None:
        if not self._counts:
            asyncio.get_running_loop().call_later(EVERY_SECONDS, self._flush)
        self._counts.update(counts)

    def _flush(self) -> None:
        counts, self._counts = self._counts, Counter()
        asyncio.get_running_loop().run_in_executor(None, self._write, counts)

    def _write(self, counts: Mapping[str, int]) -> None:
        with suppress(StoreUnavailable):  # an uncounted refusal is still a refusal
            self._store.count(counts)
