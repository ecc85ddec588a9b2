"""How fast a peer sends: one that keeps us waiting for next to nothing is cut off, and so cannot hold a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from inbox.errors import TransientError

WINDOW_SECONDS = 60.0
SETTING = "DOCUMENT_MIN_BYTES_PER_SECOND"


class MinSpeedGuard:
    """Looks once in WINDOW_SECONDS, from a thread of its own: a peer can make a single read last for days.

    Only the time that we wait for the peer counts, so that a slow disk of ours is not taken for it.
    """

    def __init__(self, cut: Callable[[], None], slowest: int) -> None:
        self._cut, self._slowest = cut, slowest  # bytes a second
        self._received, self._waited = 0, 0.0
        self._since: float | None = None  # when the read under way began
        self._over = threading.Event()
        self._too_slow = False

    def kept(self, read: Callable[[], bytes]) -> Iterator[bytes]:
        """What `read` brings, to its end. Raises TransientError if it was cut off, and what `read` raises otherwise."""
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            while chunk := self._timed(read):
                self._received += len(chunk)
                yield chunk
        finally:
            self._over.set()

    def _timed(self, read: Callable[[], bytes]) -> bytes:
        began = self._since = time.monotonic()
        try:
            return read()
        finally:
            self._since = None
            self._waited += time.monotonic() - began
            if self._too_slow:  # a connection that was cut looks like one that has ended or broken off
                raise TransientError(f"it sends less than {self._slowest} bytes a second ({SETTING})")

    def _watch(self) -> None:
        received, waited = 0, 0.0
        while not self._over.wait(WINDOW_SECONDS):
            before = received, waited
            received, waited = self._received, self._waited_so_far()
            brought, seconds = received - before[0], waited - before[1]
            if seconds > WINDOW_SECONDS / 2 and brought < self._slowest * seconds:
                self._too_slow = True
                self._cut()
                return

    def _waited_so_far(self) -> float:
        since = self._since
        return self._waited + (time.monotonic() - since if since is not None else 0)
