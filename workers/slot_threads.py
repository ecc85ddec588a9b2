"""The threads of a pool process that run jobs beside each other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue

import structlog

from inbox.job import Lease
from tasks.handler import Handler
from telemetry import tracing
from workers.flower_events import FlowerEvents
from workers.run import AttemptFailed, Runner

log = structlog.get_logger()


class SlotThreads:
    """Runs leased jobs, each in a thread. Threads are started when needed, and stay.

    `on_end` is called after each job. The methods are for one thread, the one that leases the jobs.
    """

    def __init__(
        self, runner: Runner, handlers: Mapping[str, Handler], events: FlowerEvents, on_end: Callable[[], None]
    ) -> None:
        self._runner, self._handlers, self._events, self._on_end = runner, handlers, events, on_end
        self._todo: SimpleQueue[tuple[Lease, float]] = SimpleQueue()
        self._over: deque[Lease] = deque()
        self._threads = self._unfinished = 0

    def run(self, lease: Lease, deadline: float) -> None:
        """Begin the job; `deadline` is the time.monotonic() by which it should be done."""
        self._unfinished += 1
        if self._unfinished > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True, name=f"slot-{self._threads}").start()
        self._todo.put((lease, deadline))

    def ended(self) -> list[Lease]:
        """The leases of the jobs that have ended since the last call."""
        found = [self._over.popleft() for _ in range(len(self._over))]
        self._unfinished -= len(found)
        return found

    def close(self) -> None:
        """The process ends without Celery: send what is still to be sent."""
        self._events.send()
        tracing.stop()

    def _work(self) -> None:
        while True:
            lease, deadline = self._todo.get()
            try:
                self._run(lease, deadline)
            except BaseException as error:  # whatever a handler raises, as SystemExit: the thread is needed again
                log.warning("a job ended its slot", job=lease.job_id, error=type(error).__name__)
            self._over.append(lease)
            self._on_end()

    def _run(self, lease: Lease, deadline: float) -> None:
        with self._events.record(lease) as outcome:
            try:
                outcome.result, _ = self._runner.attempt(self._handlers[lease.task], lease, deadline)
            except AttemptFailed as error:
                outcome.error = str(error)
