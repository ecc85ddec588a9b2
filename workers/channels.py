"""Pipes between a worker's main process and its pool processes.

They say only that something has happened. The kernel closes the ends of a process that dies, so no death is missed.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress


class Wake:
    """Wakes a thread that polls `fd`. Any number of calls before the thread looks are one."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self._called = False

    def __call__(self) -> None:
        if not self._called:
            self._called = True  # two threads may both come here: then the reader wakes once too often
            os.write(self._write, b"x")

    def clear(self) -> None:
        """The caller looks afterwards at what has changed, so that a call between these two steps is not lost."""
        os.read(self.fd, 1)
        self._called = False


class Signal:
    """Something that happens once. It has happened when all processes that hold it have closed it or died."""

    def __init__(self) -> None:
        self.fd, self._end = os.pipe()

    def close(self) -> None:
        """May be called again, and in a signal handler."""
        end, self._end = self._end, -1  # by then the number may be that of another file
        if end >= 0:
            os.close(end)

    def wait(self, seconds: float | None = None) -> None:
        select.select([self.fd], [], [], seconds)


class Channels:
    """Created by the main process before it forks."""

    def __init__(self) -> None:
        self._start = Signal()  # held by the main process
        self._stop = Signal()  # held by the main process
        self._drained = Signal()  # held by each pool process as long as it runs jobs
        self._spare, self._spare_end = os.pipe()  # jobs that a busy pool process leaves to the others
        os.set_blocking(self._spare, False)
        os.set_blocking(self._spare_end, False)

    # --- the main process

    def start_leasing(self) -> None:
        """The worker is ready. If a pool process died before, Celery would end the worker."""
        self._start.close()

    def stop_leasing(self) -> None:
        """Tell the pool processes to lease no more jobs. May be called again, and in a signal handler."""
        self._stop.close()
        self._drained.close()

    def wait_drained(self, seconds: float) -> None:
        """Until all pool processes run no job any more, or the time is over."""
        self._drained.wait(seconds)

    # --- the pool processes

    def enter_pool_process(self) -> None:
        """Close what the main process holds."""
        self._start.close()
        self._stop.close()

    def wait_for_start(self) -> None:
        """Until the worker is ready; a process that replaces another one need not wait."""
        self._start.wait()

    def report_drained(self) -> None:
        self._drained.close()

    def offer_jobs(self) -> None:
        """Wake one of the pool processes that have free slots."""
        with suppress(BlockingIOError):  # enough offers
            os.write(self._spare_end, b"x")

    def wait(self, wake: Wake, seconds: float | None, *, has_room: bool, stopping: bool) -> tuple[bool, bool]:
        """Until one of the channels says something, or the time is over.

        Returns whether jobs were offered, if the process `has_room`; and whether to stop leasing: a process that is
        `stopping` knows.
        """
        watched = [wake.fd, *[self._spare] * has_room, *[self._stop.fd] * (not stopping)]
        ready, _, _ = select.select(watched, [], [], seconds)
        if wake.fd in ready:
            wake.clear()
        return self._spare in ready and self._accept_offer(), stopping or self._stop.fd in ready

    def _accept_offer(self) -> bool:
        with suppress(BlockingIOError):  # another process was faster
            return bool(os.read(self._spare, 1))
        return False
