"""What arrives at once is recorded at once: one round trip and one fsync for many events.

While one batch is on its way to the disk the next one gathers, so nobody waits for company. An event is acknowledged
only after the batch that it is in; its doorbells are rung even if its sender has given up by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from inbox.errors import StoreUnavailable
from inbox.event import Arrival
from inbox.store import Store
from tasks.broker import BackgroundRinger

log = structlog.get_logger()

MOST = 128  # events in a batch: as many as a store takes in some 20 ms, and others wait for it meanwhile


class GroupCommit:
    """Used from one event loop. The store is asked from a thread of its own, which is asked once a batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._ringer = BackgroundRinger()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="group-commit")
        self._waiting: list[tuple[Arrival, asyncio.Future[bool]]] = []
        self._work: asyncio.Task[None] | None = None

    async def record(self, arrival: Arrival, seconds: float) -> bool:
        """Returns when the event is on disk: True since now, False since earlier. Raises StoreUnavailable, at
        the latest after `seconds`: then it may or may not have been recorded, and the sender's next try will tell."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((arrival, done))
        if self._work is None:
            self._work = loop.create_task(self._commit())
        too_slow = loop.call_later(seconds, _give_up, done)
        try:
            return await done
        finally:
            too_slow.cancel()

    async def _commit(self) -> None:
        try:
            while self._waiting:
                gathered = [(arrival, done) for arrival, done in self._waiting if not done.done()]  # some have given up
                batch, self._waiting = gathered[:MOST], gathered[MOST:]
                outcomes = await self._outcomes([arrival for arrival, _ in batch])
                for (_, done), outcome in zip(batch, outcomes, strict=True):
                    _tell(done, outcome)
        finally:
            self._work = None  # or nobody would ever be heard again

    async def _outcomes(self, arrivals: Sequence[Arrival]) -> Sequence[StoreUnavailable | bool]:
        """An error of no known kind costs one batch its 200, and no later one."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, arrivals)
        except Exception as error:
            log.error("a batch could not be recorded", error=type(error).__name__, exc_info=error)
            return [StoreUnavailable("the store does not take this now (it has been logged why)")] * len(arrivals)

    def _write(self, arrivals: Sequence[Arrival]) -> Sequence[StoreUnavailable | bool]:
        outcomes = self._store.record_all(arrivals)
        self._ringer.ring(bell for outcome in outcomes if isinstance(outcome, list) for bell in outcome)
        return [outcome if isinstance(outcome, StoreUnavailable) else outcome is not None for outcome in outcomes]


def _give_up(done: asyncio.Future[bool]) -> None:
    _tell(done, StoreUnavailable("the store does not take this now (it is too slow)"))


def _tell(done: asyncio.Future[bool], outcome: StoreUnavailable | bool) -> None:
    if done.done():  # whoever waited has given up
        return
    if isinstance(outcome, bool):
        done.set_result(outcome)
    else:
        done.set_exception(outcome)
