"""Workers in this process, on a real record whose clock the test moves, also by days."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from inbox import queries
from inbox.event import Event
from inbox.job import Doorbell
from inbox.store import Store
from settings import load
from tasks.handler import Handler
from tasks.routes import QUEUES, TASKS, jobs_for
from tests.conftest import Clock
from tests.support.running import run
from workers.run import AttemptFailed, Runner


@dataclass
class Workplace:
    """A record, a database, and the settings of the test. Every job runs as soon as it is due."""

    store: Store
    clock: Clock
    sessions: Callable[[], Session]
    settings: dict[str, str] = field(default_factory=dict)

    def record(self, source: str, event_id: str, event_type: str, body: bytes) -> None:
        """Record an event and run its jobs that are due."""
        jobs = jobs_for(source, event_id, event_type)
        self._work(self.store.record(Event(source, event_id, event_type, body), jobs) or [])

    def pass_time(self, seconds: float) -> None:
        """Move the clock in steps of at most an hour, and run the jobs that become due."""
        end = self.clock.ms + int(seconds * 1000)
        while self.clock.ms < end:
            self.clock.ms = min(end, self.clock.ms + 3_600_000)
            self._work(self.store.sweep(100, dict.fromkeys(QUEUES, 100)))

    def replay(self, job: str) -> None:
        """Replay the job and run it."""
        bells = self.store.replay(job, "the test")
        assert not isinstance(bells, str), bells
        self._work(bells)

    def dead(self) -> list[str]:
        """The dead letters, newest first."""
        return [job["id"] for job in queries.list_dead(self.store, 100)]

    def _work(self, bells: list[Doorbell]) -> None:
        waiting = list(bells)
        runner = Runner(self.store, self.sessions, load(self.settings), waiting.extend, "worker-1")
        while waiting:
            bell = waiting.pop(0)
            with suppress(AttemptFailed):
                run(runner, _handler(bell.task), bell.job_id, "task", 55)


def _handler(task: str) -> Handler:
    module, _, name = TASKS[task].handler.partition(":")
    found: Any = getattr(importlib.import_module(module), name)
    return found  # type: ignore[no-any-return]
