"""Group commit: events that arrive together are recorded together, with one round trip and one fsync.

While one batch is written the next one gathers, so no event waits for others. An event is acknowledged only after its
batch is on disk; its doorbells are rung even if the client has disconnected by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from inbox.errors import StoreUnavailable
from inbox.event import NewEvent
from inbox.recorder import Recorder
from tasks.broker import BackgroundRinger

log = structlog.get_logger()

DEADLINE_SECONDS = 1.8  # a client gets 200 or 503 within 2 seconds
MAX_BATCH = 128  # a store records that many in about 20 ms, and the next batch waits meanwhile


class GroupCommit:
    """Used from one event loop."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ringer = BackgroundRinger()
        self._waiting: list[_Waiter] = []
        self._in_flight: list[_Waiter] = []
        self._work: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def record(self, event: NewEvent) -> asyncio.Future[bool]:
        """Done when the event is on disk: True if it is new, False if it was recorded before. Fails with
        StoreUnavailable after DEADLINE_SECONDS at the latest: the event may have been recorded nevertheless, and the
        source's next delivery of it settles that."""
        loop = asyncio.get_running_loop()
        waiter = _Waiter(event, loop.create_future(), loop.time() + DEADLINE_SECONDS)
        self._waiting.append(waiter)
        if self._work is None:
            self._work = loop.create_task(self._commit())
        if self._deadline is None:
            self._deadline = loop.call_at(waiter.expires_at, self._expire)
        return waiter.outcome

    async def _commit(self) -> None:
        try:
            while self._waiting:
                gathered = [waiter for waiter in self._waiting if not waiter.outcome.done()]  # some have expired
                self._in_flight, self._waiting = gathered[:MAX_BATCH], gathered[MAX_BATCH:]
                outcomes = await self._outcomes([waiter.event for waiter in self._in_flight])
                for waiter, outcome in zip(self._in_flight, outcomes, strict=True):
                    waiter.resolve(outcome)
        finally:
            self._work = None  # even on error, so that the next event starts a new task
            self._in_flight = []

    async def _outcomes(self, events: Sequence[NewEvent]) -> Sequence[StoreUnavailable | bool]:
        """Whether each is new. An unexpected error fails this batch, and no later one."""
        try:
            outcomes = await self._recorder.record_all(events)
        except Exception as error:
            log.error("a batch could not be recorded", error=type(error).__name__, exc_info=error)
            return [StoreUnavailable("the store is not available (the log has the reason)")] * len(events)
        self._ringer.ring(bell for outcome in outcomes if isinstance(outcome, list) for bell in outcome)
        return [outcome if isinstance(outcome, StoreUnavailable) else outcome is not None for outcome in outcomes]

    def _expire(self) -> None:
        """One timer for all waiters: it runs when the oldest expires."""
        now, left = asyncio.get_running_loop().time(), []
        for waiter in (*self._in_flight, *self._waiting):
            if waiter.expires_at <= now:
                waiter.resolve(StoreUnavailable("the store is not available (it is too slow)"))
            else:
                left.append(waiter.expires_at)
        self._deadline = asyncio.get_running_loop().call_at(left[0], self._expire) if left else None


class _Waiter(NamedTuple):
    """`expires_at` is in seconds of the event loop's clock."""

    event: NewEvent
    outcome: asyncio.Future[bool]
    expires_at: float

    def resolve(self, outcome: StoreUnavailable | bool) -> None:
        if self.outcome.done():  # it has expired, or its client has disconnected
            return
        if isinstance(outcome, bool):
            self.outcome.set_result(outcome)
        else:
            self.outcome.set_exception(outcome)
