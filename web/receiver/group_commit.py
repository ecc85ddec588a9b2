"""What arrives at once is recorded at once: one round trip and one fsync for many events.

While one batch is on its way to the disk the next one gathers, so nobody waits for company. An event is acknowledged
only after the batch that it is in; its doorbells are rung even if its sender has given up by then.
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

DEADLINE_SECONDS = 1.8  # a sender hears 200 or 503 within 2
MAX_BATCH = 128  # events in a batch: as many as a store takes in some 20 ms, and others wait for it meanwhile


class GroupCommit:
    """Used from one event loop."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._ringer = BackgroundRinger()
        self._waiting: list[_Waiter] = []
        self._asked: list[_Waiter] = []
        self._work: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def record(self, arrival: NewEvent) -> asyncio.Future[bool]:
        """Done when the event is on disk: True since now, False since earlier. StoreUnavailable at the latest after
        SECONDS: then it may or may not have been recorded, and the sender's next try will tell."""
        loop = asyncio.get_running_loop()
        sender = _Waiter(arrival, loop.create_future(), loop.time() + DEADLINE_SECONDS)
        self._waiting.append(sender)
        if self._work is None:
            self._work = loop.create_task(self._commit())
        if self._deadline is None:
            self._deadline = loop.call_at(sender.until, self._give_up)
        return sender.told

    async def _commit(self) -> None:
        try:
            while self._waiting:
                gathered = [sender for sender in self._waiting if not sender.told.done()]  # some have given up
                self._asked, self._waiting = gathered[:MAX_BATCH], gathered[MAX_BATCH:]
                outcomes = await self._outcomes([sender.arrival for sender in self._asked])
                for sender, outcome in zip(self._asked, outcomes, strict=True):
                    sender.resolve(outcome)
        finally:
            self._work = None  # or nobody would ever be heard again
            self._asked = []

    async def _outcomes(self, arrivals: Sequence[NewEvent]) -> Sequence[StoreUnavailable | bool]:
        """An error of no known kind costs one batch its 200, and no later one."""
        try:
            outcomes = await self._recorder.record_all(arrivals)
        except Exception as error:
            log.error("a batch could not be recorded", error=type(error).__name__, exc_info=error)
            return [StoreUnavailable("the store is not available (the log has the reason)")] * len(arrivals)
        self._ringer.ring(bell for outcome in outcomes if isinstance(outcome, list) for bell in outcome)
        return [outcome if isinstance(outcome, StoreUnavailable) else outcome is not None for outcome in outcomes]

    def _give_up(self) -> None:
        """One timer for all: it rings for whoever has waited longest."""
        now, left = asyncio.get_running_loop().time(), []
        for sender in (*self._asked, *self._waiting):
            if sender.until <= now:
                sender.resolve(StoreUnavailable("the store is not available (it is too slow)"))
            else:
                left.append(sender.until)
        self._deadline = asyncio.get_running_loop().call_at(left[0], self._give_up) if left else None


class _Waiter(NamedTuple):
    """Who waits, and until when, by the clock of the event loop."""

    arrival: NewEvent
    told: asyncio.Future[bool]
    until: float

    def resolve(self, outcome: StoreUnavailable | bool) -> None:
        if self.told.done():  # whoever waited has given up
            return
        if isinstance(outcome, bool):
            self.told.set_result(outcome)
        else:
            self.told.set_exception(outcome)
