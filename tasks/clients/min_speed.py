"""Disconnect from a server that sends too slowly, so that it cannot occupy a worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from inbox.errors import TransientError

WINDOW_SECONDS = 60.0
SETTING = "DOCUMENT_MIN_BYTES_PER_SECOND"


class MinSpeedGuard:
    """Checks the speed once in WINDOW_SECONDS, in a thread, because a server can make a single read last for days.

    Only the time spent waiting for the server counts, so a slow disk of ours is not mistaken for a slow server.
    """

    def __init__(self, disconnect: Callable[[], None], min_bytes_per_second: int) -> None:
        self._disconnect, self._min_speed = disconnect, min_bytes_per_second
        self._received, self._waited = 0, 0.0
        self._read_began: float | None = None  # None between two reads
        self._done = threading.Event()
        self._too_slow = False

    def read(self, read_chunk: Callable[[], bytes]) -> Iterator[bytes]:
        """The chunks that `read_chunk` returns, up to the first empty one.

        Raises TransientError if the server was too slow, and otherwise what `read_chunk` raises.
        """
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            while chunk := self._timed(read_chunk):
                self._received += len(chunk)
                yield chunk
        finally:
            self._done.set()

    def _timed(self, read_chunk: Callable[[], bytes]) -> bytes:
        began = self._read_began = time.monotonic()
        try:
            return read_chunk()
        finally:
            self._read_began = None
            self._waited += time.monotonic() - began
            if self._too_slow:  # after our own disconnect the read looks as if it had ended or failed
                raise TransientError(f"the server sends less than {self._min_speed} bytes a second ({SETTING})")

    def _watch(self) -> None:
        received, waited = 0, 0.0
        while not self._done.wait(WINDOW_SECONDS):
            before = received, waited
            received, waited = self._received, self._waited_so_far()
            new_bytes, seconds = received - before[0], waited - before[1]
            if seconds > WINDOW_SECONDS / 2 and new_bytes < self._min_speed * seconds:
                self._too_slow = True
                self._disconnect()
                return

    def _waited_so_far(self) -> float:
        began = self._read_began
        return self._waited + (time.monotonic() - began if began is not None else 0)
