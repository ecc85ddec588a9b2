"""One round of each measurement. Times per event are microseconds of CPU, user and system together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Contender, Holdfast
from bench.load import Load, paced, wrk
from bench.processes import Part
from dev.stack.servers import wait_until

CONNECTIONS = 32
SENDERS = 16  # end to end
MOST_SECONDS = 2  # to learn what a receiver can do now
SETTLE_SECONDS = 0.5  # for requests under way when wrk stops
STUCK_SECONDS = 60  # without an effect


class Miscounted(Exception):
    """What was recorded is not what was acknowledged: the round proves nothing."""


@dataclass(frozen=True, slots=True)
class Acks:
    """A receiver at its most."""

    web_us: float
    store_us: float
    per_second: float
    p50: float
    p99: float
    p999: float
    generator: float  # the share of a core that the load generator used


@dataclass(frozen=True, slots=True)
class Steady:
    """A receiver at a part of its most. Milliseconds."""

    rate: float
    p50: float
    p99: float
    p999: float
    generator: float  # the share of a core that the sender used


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """From the request to the effect, until the last is done."""

    web_us: float
    worker_us: float
    store_us: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Workers at a full queue; per job, of all of them together."""

    worker_us: float
    store_us: float
    per_second: float


def acks(contender: Contender, web: Part, seconds: float) -> Acks:
    """No worker runs: what a receiver costs shows best alone."""
    contender.wipe()
    _checked(contender, lambda: wrk(contender.port, 1, CONNECTIONS), CONNECTIONS)  # warm
    meters = (web.cpu_seconds, contender.store_seconds)
    load, (web_us, store_us) = _checked(
        contender, lambda: wrk(contender.port, seconds, CONNECTIONS), CONNECTIONS, meters
    )
    return Acks(web_us, store_us, load.acks / load.seconds, load.p50, load.p99, load.p999, load.busy)


def steady(contender: Contender, web: Part, share: float, seconds: float) -> Steady:
    """At a `share` of its most, which is measured just before: on a shared machine that of some minutes ago would be
    another's. Every request is waited for, so the count is exact."""
    rate = acks(contender, web, MOST_SECONDS).per_second * share
    contender.wipe()
    load, _ = _checked(contender, lambda: paced(contender.port, rate, seconds, CONNECTIONS), 0)
    return Steady(rate, load.p50, load.p99, load.p999, load.busy)


def end_to_end(contender: Contender, web: Part, seconds: float) -> EndToEnd:
    """A receiver and one worker process, from the first request to the last effect."""
    contender.wipe()
    worker = contender.start(contender.worker(), "worker")

    last = 0.0

    def run() -> Load:
        nonlocal last
        load = wrk(contender.port, seconds, SENDERS)
        last = _last_effect(contender, worker)
        return load

    try:
        paced(contender.port, 50, 1, 2)  # warm
        _last_effect(contender, worker)
        load, used = _checked(contender, run, SENDERS, (web.cpu_seconds, worker.cpu_seconds, contender.store_seconds))
        web_us, worker_us, store_us = used
        return EndToEnd(web_us, worker_us, store_us, load.acks / (last - load.began))
    finally:
        worker.stop()


def drain(holdfast: Holdfast, command: Sequence[str | Path], left: Callable[[], int]) -> Drain:
    """A worker that starts at a full queue of jobs that do nothing."""
    worker = holdfast.start([*command], "drain", BENCH_EFFECT="nothing")
    try:
        return drained(holdfast, [worker], left)
    finally:
        worker.stop()


def drained(holdfast: Holdfast, workers: Sequence[Part], left: Callable[[], int]) -> Drain:
    """What these workers, just started, need for a full queue: from when a tenth is done, and they are warm, on."""
    count, logs = left(), ", ".join(str(worker.log) for worker in workers)
    wait_until(lambda: left() <= count * 0.9, seconds=60, what=f"the workers to begin; see {logs}")
    first, worker, store, began = left(), _seconds(workers), holdfast.store_seconds(), time.monotonic()
    wait_until(lambda: left() == 0, seconds=240, what=f"the workers to end; see {logs}")
    seconds = time.monotonic() - began
    worker, store = _seconds(workers) - worker, holdfast.store_seconds() - store
    return Drain(worker / first * 1e6, store / first * 1e6, first / seconds)


def _seconds(parts: Sequence[Part]) -> float:
    return sum(part.cpu_seconds() for part in parts)


def _last_effect(contender: Contender, worker: Part) -> float:
    """When the last effect of what is recorded was seen. Records are counted once: some stores scan for that."""
    seen, last, total = contender.effects(), time.monotonic(), None
    settled = last + SETTLE_SECONDS  # then no request is under way any more
    while total is None or seen < total:
        time.sleep(0.01)
        if seen < (seen := contender.effects()):
            last = time.monotonic()
        elif time.monotonic() > last + STUCK_SECONDS:
            raise TimeoutError(f"{seen} effects of {total}; see {worker.log}")
        if total is None and time.monotonic() > settled:
            total = contender.recorded()
    return last


def _checked(
    contender: Contender, run: Callable[[], Load], under_way: int, meters: Sequence[Callable[[], float]] = ()
) -> tuple[Load, list[float]]:
    """A load whose every acknowledgement is a new record, and what each meter of CPU seconds says, in us per ack.

    When wrk stops, up to one request on each connection is `under_way`: recorded perhaps, and not counted as an ack.
    """
    known, before = contender.recorded(), [read() for read in meters]
    load = run()
    time.sleep(SETTLE_SECONDS)
    used = [(read() - then) / load.acks * 1e6 for read, then in zip(meters, before, strict=True)]
    recorded = contender.recorded() - known
    if not load.acks <= recorded <= load.acks + under_way:
        raise Miscounted(f"{load.acks} acknowledged, {recorded} recorded")
    return load, used
