"""One round of each measurement, as figures by name.

`web_us`, `worker_us` and `store_us` are microseconds of CPU per event, user and system together; `p50`, `p99` and
`p999` are latencies in milliseconds; `generator` is the number of cores that the load generator used.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench.contenders import Command, Contender
from bench.events import SECRET, bodies
from bench.load import Load, paced, percentile, wrk
from bench.processes import Part
from cli import stripe_events
from dev.stack.servers import wait_until

Figures = dict[str, float]

CONNECTIONS = 32
END_TO_END_CONNECTIONS = 16
SHARE = 0.7  # of the maximum rate, for the latencies
MAX_RATE_SECONDS = 2  # to measure the maximum rate
SETTLE_SECONDS = 0.5  # for requests in flight when wrk stops
STUCK_SECONDS = 60  # without an effect
STARTED = "started"  # Redis list to which the handler of bench/worker_app.py adds its start time
IDLE_SECONDS = 0.05  # between events, so that the worker is idle again
MAX_START_SECONDS = 30


class Miscounted(Exception):
    """The recorded events are not the acknowledged ones, so the round is invalid."""


def acks(contender: Contender, web: Part, seconds: float) -> Figures:
    """A receiver at its maximum rate. No worker runs, so that only the receiver is measured."""
    contender.wipe()
    run, meters = partial(wrk, contender.port, connections=CONNECTIONS), (web.cpu_seconds, contender.store_seconds)
    _checked(contender, partial(run, seconds=1), CONNECTIONS)  # warm up
    load, (web_us, store_us) = _checked(contender, partial(run, seconds=seconds), CONNECTIONS, meters)
    return {"web_us": web_us, "store_us": store_us, "per_second": load.acks / load.seconds, **load.figures}


def steady(contender: Contender, web: Part, seconds: float) -> Figures:
    """A receiver at SHARE of its maximum rate, measured immediately before because the machine's speed changes."""
    rate = acks(contender, web, MAX_RATE_SECONDS)["per_second"] * SHARE
    contender.wipe()
    load, _ = _checked(contender, lambda: paced(contender.port, rate, seconds, CONNECTIONS), 0)
    return {"rate": rate, **load.figures}


def end_to_end(contender: Contender, web: Part, seconds: float) -> Figures:
    """A receiver and one worker process, from the first request to the last effect."""
    contender.wipe()
    worker = contender.start(contender.worker, "worker")
    last = 0.0

    def run() -> Load:
        nonlocal last
        load = wrk(contender.port, seconds, END_TO_END_CONNECTIONS)
        last = _last_effect(contender, worker)
        return load

    try:
        paced(contender.port, 50, 1, 2)  # warm up
        _last_effect(contender, worker)
        meters = (web.cpu_seconds, worker.cpu_seconds, contender.store_seconds)
        load, used = _checked(contender, run, END_TO_END_CONNECTIONS, meters)
        costs = dict(zip(("web_us", "worker_us", "store_us"), used, strict=True))
        return {**costs, "total_us": sum(used), "per_second": load.acks / (last - load.began)}
    finally:
        worker.stop()


def drain(contender: Contender, command: Command, left: Callable[[], int], effect: str) -> Figures:
    """One worker on a queue that is full when it starts. `left` returns the number of unfinished jobs."""
    worker = contender.start(command, "drain", BENCH_EFFECT=effect)
    try:
        return drained(contender, [worker], left)
    finally:
        worker.stop()


def drained(contender: Contender, workers: Sequence[Part], left: Callable[[], int]) -> Figures:
    """Cost per job of emptying a full queue, all workers together. The first tenth of the jobs is not measured,
    because the workers are starting."""
    count, logs = left(), ", ".join(str(worker.log) for worker in workers)
    wait_until(lambda: left() <= count * 0.9, seconds=60, what=f"the workers' first jobs; see {logs}")
    jobs, worker, store, began = left(), _cpu_seconds(workers), contender.store_seconds(), time.monotonic()
    wait_until(lambda: left() == 0, seconds=240, what=f"the workers' last jobs; see {logs}")
    seconds = time.monotonic() - began
    worker, store = _cpu_seconds(workers) - worker, contender.store_seconds() - store
    return {"worker_us": worker / jobs * 1e6, "store_us": store / jobs * 1e6, "per_second": jobs / seconds}


def idle(contender: Contender, count: int) -> Figures:
    """From an acknowledgement to the start of its handler, one event at a time; ten more warm the worker up."""
    contender.wipe()
    worker = contender.start(contender.worker, "idle", BENCH_EFFECT="stamp")
    try:
        delays = sorted([_start_delay_ms(contender, worker, body) for body in bodies(10 + count)][10:])
    finally:
        worker.stop()
    return {"p50": percentile(delays, 50), "p99": percentile(delays, 99)}


def _start_delay_ms(contender: Contender, worker: Part, body: bytes) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", contender.port, timeout=10)
    headers = {"Stripe-Signature": stripe_events.signature(body, SECRET, int(time.time()))}
    connection.request("POST", "/stripe-webhook", body, headers)
    status = connection.getresponse().status
    acknowledged = time.time()
    connection.close()
    if status != 200:
        raise RuntimeError(f"the receiver returned {status}")
    started: Any = contender.client.blpop([STARTED], MAX_START_SECONDS)
    if not started:
        raise TimeoutError(f"no handler started within {MAX_START_SECONDS} s; see {worker.log}")
    time.sleep(IDLE_SECONDS)
    return (float(started[1]) - acknowledged) * 1000


def _cpu_seconds(parts: Sequence[Part]) -> float:
    return sum(part.cpu_seconds() for part in parts)


def _last_effect(contender: Contender, worker: Part) -> float:
    """Wait for the effect of every recorded event; returns the time.monotonic() of the last.

    Recorded events are counted only once, because that is a scan in some stores.
    """
    effects, last, total = contender.effects(), time.monotonic(), None
    settled = last + SETTLE_SECONDS  # no request is in flight after this
    while total is None or effects < total:
        time.sleep(0.01)
        if effects < (effects := contender.effects()):
            last = time.monotonic()
        elif time.monotonic() > last + STUCK_SECONDS:
            raise TimeoutError(f"{effects} of {total} effects happened; see {worker.log}")
        if total is None and time.monotonic() > settled:
            total = contender.recorded()
    return last


def _checked(
    contender: Contender, run: Callable[[], Load], in_flight: int, meters: Sequence[Callable[[], float]] = ()
) -> tuple[Load, list[float]]:
    """Run a load; returns it with the microseconds per ack of each meter (of CPU seconds). Raises Miscounted unless
    every acknowledgement is a new record.

    When wrk stops, up to `in_flight` requests may be recorded without being counted as acknowledged.
    """
    recorded, before = contender.recorded(), [read() for read in meters]
    load = run()
    time.sleep(SETTLE_SECONDS)
    used = [(read() - then) / load.acks * 1e6 for read, then in zip(meters, before, strict=True)]
    recorded = contender.recorded() - recorded
    if not load.acks <= recorded <= load.acks + in_flight:
        raise Miscounted(f"{load.acks} acknowledged, {recorded} recorded")
    return load, used
