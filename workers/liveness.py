"""Jobs of dead processes run again within two seconds, and those of dead workers within fifteen.

A lease expires only after LEASE_SECONDS. But a worker's main process sees at once that a process of its pool has died,
and all workers see that the heartbeats of another one are missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

import structlog
from kombu.asynchronous import get_event_loop

from inbox.job import Doorbell
from inbox.store import Store
from tasks.broker import BackgroundRinger

log = structlog.get_logger()

BEAT_SECONDS = 1.0


class PoolExits:
    """Notices when processes of Celery's prefork pool die.

    Uses private parts of celery and billiard, of the versions in telemetry/tested_versions.py.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._sentinels: dict[int, int] = {}  # by pid: the end of a pipe that closes when the process dies

    def wait(self, seconds: float) -> list[int]:
        """The pids of processes that have died, after `seconds` at the latest."""
        self._watch_new_processes()
        closed = set(wait(list(self._sentinels.values()), seconds))
        dead = [pid for pid, sentinel in self._sentinels.items() if sentinel in closed]
        for pid in dead:
            os.close(self._sentinels.pop(pid))
        return dead

    def running(self) -> set[int]:
        """The pids of the pool's processes, some of which may just have died."""
        return {process.pid for process in self._processes()}

    def replace(self, pid: int) -> None:
        """Have Celery replace the dead process now.

        Celery tries so itself when the sentinel closes, but that happens a moment before the process can be waited for.
        If Celery is too early, it replaces the process up to 5 seconds later.
        """
        _wait_for_exit(pid, seconds=1)
        if loop := get_event_loop():
            loop.call_soon(self._pool.maintain_pool)  # type: ignore[no-untyped-call]

    def _watch_new_processes(self) -> None:
        for process in self._processes():
            sentinel = process._popen and process._popen.sentinel
            if process.pid not in self._sentinels and sentinel is not None:
                # Celery closes its own one when it has seen the process end; as the worker stops, it is None.
                self._sentinels[process.pid] = os.dup(sentinel)

    def _processes(self) -> list[Any]:
        pool = self._pool._pool
        return list(pool._pool) if pool else []  # none after the pool has stopped


def _wait_for_exit(pid: int, seconds: float) -> None:
    """Until the process can be waited for, which is left to Celery."""
    end = time.monotonic() + seconds
    with suppress(ChildProcessError):  # Celery has done it
        while time.monotonic() < end and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            time.sleep(0.01)


class Liveness(threading.Thread):
    """Reports that this worker is alive, and ends the leases of processes and workers that have died."""

    def __init__(self, store: Store, worker: str, pool: Any) -> None:
        super().__init__(daemon=True, name="liveness")
        self._store, self._worker, self._exits = store, worker, PoolExits(pool)
        self._ringer = BackgroundRinger()  # a broker that does not answer must not delay the heartbeat
        self._next_beat = 0.0

    def run(self) -> None:
        while True:
            try:
                self._step()
            except Exception as error:  # no error ends the heartbeats
                log.warning("no heartbeat; the next one is in a second", error=type(error).__name__)
                time.sleep(BEAT_SECONDS)

    def _step(self) -> None:
        """Wait for a death or for the time of the next heartbeat, and act on it."""
        pids = self._exits.wait(max(0.0, self._next_beat - time.monotonic()))
        for pid in pids:
            self._exits.replace(pid)
        for pid in pids:
            self._end_leases(f"{self._worker}/{pid}")
        if time.monotonic() >= self._next_beat:
            self._beat()

    def _beat(self) -> None:
        holders, bells = self._store.heartbeat(self._worker)
        self._ring(bells)
        # Some processes died before this thread watched them, or while the store was not available. The running ones
        # are listed after the holders, so that a new process is not taken for a dead one.
        running = {f"{self._worker}/{pid}" for pid in self._exits.running()}
        for holder in set(holders) - running:
            self._end_leases(holder)
        self._next_beat = time.monotonic() + BEAT_SECONDS

    def _end_leases(self, holder: str) -> None:
        self._ring(self._store.end_leases(holder))

    def _ring(self, bells: Sequence[Doorbell]) -> None:
        """Their turn has come before: they do not wait for the backlog once more."""
        self._ringer.ring(self._store.push(bells, first=True))
