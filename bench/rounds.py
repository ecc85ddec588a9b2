"""One round of each measurement, as figures by name: those of bench/load.py, and `web_us`, `worker_us` and `store_us`,
microseconds of CPU per event, user and system together."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any

from bench.contenders import Contender, Holdfast
from bench.events import signed_requests
from bench.load import Figures, at_once, at_rate, percentile, send
from bench.processes import Part
from dev.stack.servers import wait_until

CONNECTIONS = 32
END_TO_END_CONNECTIONS = 16
SHARE = 0.7  # of the maximum rate, for the latencies
MAX_RATE_SECONDS = 2  # to measure the maximum rate
STUCK_SECONDS = 60  # without an effect
IDLE_SECONDS = 0.05  # between events, so that the worker is idle again
MAX_START_SECONDS = 30


class Miscounted(Exception):
    """The recorded events are not the acknowledged ones, so the round is invalid."""


class CpuMeter:
    """Microseconds of CPU since its creation; `parts` return their seconds of CPU so far."""

    def __init__(self, **parts: Callable[[], float]) -> None:
        self.parts, self.before = parts, {name: seconds() for name, seconds in parts.items()}

    def per_event(self, events: float) -> Figures:
        return {f"{name}_us": (now() - self.before[name]) / events * 1e6 for name, now in self.parts.items()}


def acks(contender: Contender, seconds: float) -> Figures:
    """A receiver at its maximum rate. No worker runs, so that only the receiver is measured."""
    contender.wipe()
    warm = send(contender.port, CONNECTIONS, at_once(1))
    cpu = CpuMeter(web=contender.receiver.cpu_seconds, store=contender.store_seconds)
    load = send(contender.port, CONNECTIONS, at_once(seconds))
    used = cpu.per_event(load["acks"])
    check_recorded(contender, warm["acks"] + load["acks"])
    return {**used, **load}


def steady(contender: Contender, seconds: float) -> Figures:
    """A receiver at SHARE of its maximum rate, measured immediately before because the machine's speed changes."""
    rate = acks(contender, MAX_RATE_SECONDS)["per_second"] * SHARE
    contender.wipe()
    load = send(contender.port, CONNECTIONS, at_rate(rate, seconds))
    check_recorded(contender, load["acks"])
    return {"rate": rate, **load}


def end_to_end(contender: Contender, seconds: float) -> Figures:
    """A receiver and one worker process, from the first request to the last effect."""
    contender.wipe()
    with contender.start(contender.worker, "worker", BENCH_EFFECT="count") as worker:
        warm = send(contender.port, 2, at_rate(50, 1))
        _last_effect(contender, worker, warm["acks"])
        cpu = CpuMeter(web=contender.receiver.cpu_seconds, worker=worker.cpu_seconds, store=contender.store_seconds)
        began = time.monotonic()
        load = send(contender.port, END_TO_END_CONNECTIONS, at_once(seconds))
        last = _last_effect(contender, worker, warm["acks"] + load["acks"])
        used = cpu.per_event(load["acks"])
    check_recorded(contender, warm["acks"] + load["acks"])
    return {**used, "total_us": sum(used.values()), "per_second": load["acks"] / (last - began)}


def drain(contender: Holdfast, jobs: int, processes: int = 1) -> Figures:
    """Worker processes that empty a full queue of jobs that do nothing. The first tenth of the jobs is not measured,
    because the workers are starting."""
    contender.wipe()
    contender.fill(jobs)
    left, see = contender.unfinished, f"see {contender.folder}"
    with ExitStack() as stack:
        workers = contender.start_workers(processes, stack)
        wait_until(lambda: left() <= jobs * 0.9, seconds=60, what=f"the workers' first jobs; {see}")
        cpu = CpuMeter(worker=lambda: sum(worker.cpu_seconds() for worker in workers), store=contender.store_seconds)
        measured, began = left(), time.monotonic()
        wait_until(lambda: left() == 0, seconds=240, what=f"the workers' last jobs; {see}")
        seconds = time.monotonic() - began
        return {**cpu.per_event(measured), "per_second": measured / seconds}


def idle(contender: Holdfast, count: int) -> Figures:
    """From an acknowledgement to the start of its handler, one event at a time; ten more warm the worker up."""
    contender.wipe()
    with contender.start(contender.worker, "idle", BENCH_EFFECT="stamp") as worker:
        requests = islice(signed_requests(), 10 + count)
        delays = sorted([_start_delay_ms(contender, worker, request) for request in requests][10:])
    return {"p50": percentile(delays, 50), "p99": percentile(delays, 99)}


def _start_delay_ms(contender: Contender, worker: Part, request: bytes) -> float:
    with socket.create_connection(("127.0.0.1", contender.port), timeout=10) as connection:
        connection.sendall(request)
        head = connection.recv(4096)
        acknowledged = time.time()
    if head.split(b" ", 2)[1] != b"200":
        raise RuntimeError(f"the response was {head!r}")
    started: Any = contender.client.blpop(["started"], MAX_START_SECONDS)
    if not started:
        raise TimeoutError(f"no handler started within {MAX_START_SECONDS} s; see {worker.log}")
    time.sleep(IDLE_SECONDS)
    return (float(started[1]) - acknowledged) * 1000


def _last_effect(contender: Contender, worker: Part, total: float) -> float:
    """Wait for `total` effects; returns the time.monotonic() of the last."""
    effects, last = contender.effects(), time.monotonic()
    while effects < total:
        time.sleep(0.01)
        if effects < (effects := contender.effects()):
            last = time.monotonic()
        elif time.monotonic() > last + STUCK_SECONDS:
            raise TimeoutError(f"{effects} of {total:g} effects happened; see {worker.log}")
    return last


def check_recorded(contender: Contender, acknowledged: float) -> None:
    """Raises Miscounted unless every acknowledgement since the last wipe is a new record."""
    if (recorded := contender.recorded()) != acknowledged:
        raise Miscounted(f"{acknowledged} acknowledged, {recorded} recorded")
