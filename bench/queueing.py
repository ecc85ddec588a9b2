"""Receivers and workers around the one store, simulated with measured costs.

Events arrive at random (Poisson). A receiver is one core: it works on each request, and has one batch at the store at a
time, in which all goes that has gathered meanwhile (group_commit.py). The store is one thread: it takes all that
waits for it, works on each command, writes once to the disk for all of them, and answers (as Valkey does with
`appendfsync always`). Each event is one job. A worker is one core: it works on a job, and has one round trip for each,
which finishes it and leases the next (workers/backlog.py).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bench.load import percentile

MOST = 128  # events in a batch: web/receiver/group_commit.py
WARM = 0.25  # of the time, at the begin, that does not count


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds: of a receiver, and of the store, for one acknowledgement; of a worker, and of the store, for one job; of
    one write to the disk."""

    web: float
    store_ack: float
    worker: float
    store_job: float
    fsync: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Acknowledgements in milliseconds; the share of its core that the store works; jobs done, as a share of events."""

    p50: float
    p99: float
    store: float
    done: float


@dataclass
class Receiver:
    """`free_at`: when its core is. `gathered`: when the events came that wait for its next batch."""

    free_at: float = 0.0
    gathered: list[float] = field(default_factory=list)
    asking: bool = False


class Simulation:
    """Times are seconds from its begin."""

    def __init__(self, costs: Costs, rate: float, receivers: int, workers: int, seed: int = 1) -> None:
        self.costs, self.rate, self.random = costs, rate, random.Random(seed)
        self.receivers = [Receiver() for _ in range(receivers)]
        self.idle, self.owed, self.done = workers, 0, 0
        self.asked: list[tuple[float, Callable[[], None]]] = []  # of the store: seconds of work, and what follows
        self.busy, self.worked, self.now = False, 0.0, 0.0
        self.waits: list[float] = []
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.turns = itertools.count()

    def run(self, seconds: float) -> Outcome:
        self._at(0.0, self._arrive)
        while self.agenda[0][0] < seconds:
            self.now, _, step = heapq.heappop(self.agenda)
            step()
        counted = sorted(self.waits[round(len(self.waits) * WARM) :])
        p50, p99 = (percentile(counted, percent) * 1000 for percent in (50, 99))
        return Outcome(p50, p99, self.worked / seconds, self.done / len(self.waits))

    def _at(self, time: float, step: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (time, next(self.turns), step))

    def _arrive(self) -> None:
        self._at(self.now + self.random.expovariate(self.rate), self._arrive)
        receiver = self.random.choice(self.receivers)
        receiver.free_at = max(self.now, receiver.free_at) + self.costs.web
        self._at(receiver.free_at, partial(self._gather, receiver, self.now))

    def _gather(self, receiver: Receiver, arrived: float) -> None:
        receiver.gathered.append(arrived)
        self._record(receiver)

    def _record(self, receiver: Receiver) -> None:
        if receiver.gathered and not receiver.asking:
            batch, receiver.gathered = receiver.gathered[:MOST], receiver.gathered[MOST:]
            receiver.asking = True
            self._ask(self.costs.store_ack * len(batch), partial(self._acknowledge, receiver, batch))

    def _acknowledge(self, receiver: Receiver, batch: list[float]) -> None:
        self.waits += [self.now - arrived for arrived in batch]
        self.owed += len(batch)
        while self.idle and self.owed:
            self.idle -= 1
            self._begin()
        receiver.asking = False
        self._record(receiver)

    def _begin(self) -> None:
        self.owed -= 1
        self._at(self.now + self.costs.worker, partial(self._ask, self.costs.store_job, self._finish))

    def _finish(self) -> None:
        self.done += 1
        if self.owed:
            self._begin()
        else:
            self.idle += 1

    def _ask(self, work: float, then: Callable[[], None]) -> None:
        self.asked.append((work, then))
        if not self.busy:
            self._serve()

    def _serve(self) -> None:
        taken, self.asked = self.asked, []
        work = sum(seconds for seconds, _ in taken)
        self.busy, self.worked = True, self.worked + work
        self._at(self.now + work + self.costs.fsync, partial(self._answer, taken))

    def _answer(self, taken: list[tuple[float, Callable[[], None]]]) -> None:
        self.busy = False
        for _, then in taken:
            then()
        if self.asked and not self.busy:
            self._serve()
