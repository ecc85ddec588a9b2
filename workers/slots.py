"""Many jobs at once in one pool process; see docs/decisions/0015.

Each runs in a slot, which is a thread. One more thread speaks to the record for all of them: it leases as many jobs as
there are free slots, in the round trip that reports the jobs that ended. Celery starts the process, replaces it and
wakes it by a doorbell while it is idle.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from billiard.pool import EX_RECYCLE

from inbox.batch import BatchStore, Claim
from inbox.errors import StoreUnavailable
from inbox.job import Batch, BatchRequest, Lease
from inbox.wire import nonce
from settings import MAX_PROCESS_KB
from tasks import broker
from workers.channels import Channels, Wake
from workers.run import Runner
from workers.slot_threads import SlotThreads

log = structlog.get_logger()

POLL_SECONDS = 0.02  # between two requests for jobs, while
HOT_SECONDS = 0.06  # the last one that was answered with a job is not longer ago than this
GATHER_SECONDS = 0.005  # what ends within this time is reported together
LOOK_SECONDS = 1.0  # between two looks at the time limits and the memory
RETRY_SECONDS = 0.2  # while the store is away
MOST_LEASES = 100  # in one request, because the store does nothing else meanwhile


@dataclass(slots=True)
class Running:
    """A job in a slot, since the time.monotonic() `began`."""

    lease: Lease
    began: float
    overdue: bool = False


class Slots(threading.Thread):
    """The slots of this process. `tasks` are those that they run, by queue. The runner's store is a BatchStore."""

    def __init__(
        self, runner: Runner, threads: SlotThreads, wake: Wake, tasks: Mapping[str, Sequence[str]], channels: Channels
    ) -> None:
        super().__init__(daemon=True, name="slots")
        assert isinstance(runner.store, BatchStore)  # noqa: S101
        self._runner, self._store, self._threads, self._wake = runner, runner.store, threads, wake
        self._tasks, self._channels, self._size = list(tasks.items()), channels, runner.settings.worker_slots
        self._running: dict[Claim, Running] = {}
        self._announced: deque[str] = deque()
        self._unanswered: BatchRequest | None = None
        self._hot_until = 0.0
        self._next_look = 0.0
        self._polls = True  # what the last request has promised, perhaps that of a process that has died
        self._main_thread_works = self._stopping = self._leaving = self._has_closed = False

    # --- for other threads --------------------------------------------------------------------------------------------

    def announce(self, job_id: str) -> str:
        """A doorbell was rung for this job."""
        self._announced.append(job_id)
        self._wake()
        return "announced"

    @contextmanager
    def main_thread_working(self) -> Iterator[None]:
        """While the block runs a job in the main thread, which may be long, no doorbell reaches this process."""
        self._main_thread_works = True
        self._wake()
        yield
        self._main_thread_works = False
        self._wake()

    def stop(self) -> None:
        """The process ends: return what still runs."""
        self._stopping = True
        self._release([running.lease for running in list(self._running.values())])

    # --- the thread ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        self._channels.wait_for_start()
        while True:
            try:
                self._step()
            except StoreUnavailable as error:
                log.warning("the slots wait for the store", error=str(error))
                self._store.fail_waiting(error)
                time.sleep(RETRY_SECONDS)
            except Exception as error:  # no error ends the thread: all slots depend on it
                log.exception("a step of the slots failed", error=type(error).__name__)
                time.sleep(RETRY_SECONDS)

    def _step(self) -> None:
        offered, self._stopping = self._channels.wait(
            self._wake, self._patience(), has_room=self._free() > 0, stopping=self._stopping
        )
        if self._store.waiting():
            time.sleep(GATHER_SECONDS)
        self._note_ended()
        self._exchange(woken=offered or bool(self._announced))
        self._look()
        self._close()

    def _patience(self) -> float | None:
        """How long to wait for a message on the channels."""
        if self._store.waiting() or self._unanswered:
            return 0
        if (self._is_hot() or self._polls) and self._free() > 0:  # having polled, it must say so if it stops
            return POLL_SECONDS
        return LOOK_SECONDS if self._running or self._main_thread_works or self._leaving else None

    def _is_hot(self) -> bool:
        return time.monotonic() < self._hot_until

    def _is_closed(self) -> bool:
        """No more jobs are leased. A process that is to be replaced waits for its main thread, and works meanwhile."""
        return self._stopping or (self._leaving and not self._main_thread_works)

    def _free(self) -> int:
        return 0 if self._is_closed() else self._size - len(self._running) + len(self._store.ending())

    def _note_ended(self) -> None:
        for lease in self._threads.ended():
            self._running.pop(Claim(lease.job_id, lease.token), None)

    # --- the record ---------------------------------------------------------------------------------------------------

    def _exchange(self, woken: bool) -> None:
        ending, request = self._store.ending(), self._unanswered or self._request(woken)
        self._unanswered = request
        batch = self._store.exchange(request)
        self._unanswered = None
        for claim in ending:
            self._running.pop(claim, None)
        if batch:
            self._begin(batch)

    def _request(self, woken: bool) -> BatchRequest | None:
        """What to ask the record for. The last request of a busy time, which finds nothing, makes the next job ring."""
        announced = [self._announced.popleft() for _ in range(len(self._announced))]
        if self._is_closed():
            return self._last_request()
        self._has_closed = False
        free = min(self._free(), MOST_LEASES)
        if free <= 0:
            if announced:
                self._channels.offer_jobs()
            return None
        if woken:
            self._hot_until = time.monotonic() + HOT_SECONDS
        polls = self._is_hot()
        if polls or self._polls or self._store.waiting() or self._main_thread_works:
            return self._request_for(free, polls, announced)
        return None

    def _last_request(self) -> BatchRequest | None:
        """For no job: the jobs that arrive from now on are rung."""
        if self._has_closed:
            return None
        self._has_closed = True
        return self._request_for(0, polls=False)

    def _request_for(self, number: int, polls: bool, announced: Sequence[str] = ()) -> BatchRequest:
        runner, self._polls = self._runner, polls
        self._tasks.append(self._tasks.pop(0))  # another queue comes first each time
        return BatchRequest(
            runner.holder,
            runner.settings.lease_seconds,
            dict(self._tasks),
            number,
            nonce(),
            polls=polls,
            announced=announced,
            takes_suspect=not self._runs_suspect(),
        )

    def _runs_suspect(self) -> bool:
        ending = self._store.ending()
        return any(running.lease.suspect and claim not in ending for claim, running in self._running.items())

    def _begin(self, batch: Batch) -> None:
        if batch.left:
            self._channels.offer_jobs()
        self._runner.ring(batch.bells)
        if self._is_closed():
            self._release(batch.leases)
            return
        now = time.monotonic()
        if batch.leases:
            self._hot_until = now + HOT_SECONDS
        for lease in batch.leases:
            self._running[Claim(lease.job_id, lease.token)] = Running(lease, now)
            self._threads.run(lease, now + self._runner.settings.job_soft_limit_seconds)

    def _release(self, leases: Sequence[Lease]) -> None:
        if not leases:
            return
        try:
            bells = self._store.release_all(leases)
            log.info("jobs returned", jobs=len(leases))
            broker.ring(bells)
        except StoreUnavailable as error:
            log.warning("jobs not returned; their leases will end", jobs=len(leases), why=type(error).__name__)

    # --- what Celery does for jobs that have a process of their own ---------------------------------------------------

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        limit = self._runner.settings.job_time_limit_seconds
        for running in self._running.values():
            if now - running.began > limit and not running.overdue:
                running.overdue = True
                threading.Thread(target=self._runner.overran, args=(running.lease, running.began), daemon=True).start()
                self._leave("a job exceeded its time limit and did not stop")
        if _resident_kb() > MAX_PROCESS_KB:
            self._leave("it uses too much memory")

    def _leave(self, why: str) -> None:
        if not self._leaving:
            self._leaving = True
            log.warning("the process will be replaced when its other jobs have ended", why=why)

    def _close(self) -> None:
        """If no job runs any more: say so, or let Celery replace the process."""
        if not self._is_closed() or self._running or self._store.waiting():
            return
        if self._stopping:
            self._channels.report_drained()
        elif not self._main_thread_works:
            self._threads.close()
            os._exit(EX_RECYCLE)


def _resident_kb() -> int:
    """The memory of this process, or where that is not known, the most that it has used."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() // 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most
