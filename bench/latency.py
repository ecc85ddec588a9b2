"""How long an event waits for a worker that has nothing else to do: from the 200 to the first line of its handler."""

from __future__ import annotations

import http.client
import time
from dataclasses import dataclass
from typing import Any

from bench.contenders import Contender
from bench.events import SECRET, bodies
from bench.load import percentile
from bench.processes import Part
from cli import stripe_events

STARTED = "started"  # the list where the handler of bench/worker_app.py says when it began
PAUSE_SECONDS = 0.05  # after each, so that the worker waits again
LONGEST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Idle:
    """Milliseconds from an acknowledgement to the start of its handler, one event at a time."""

    p50: float
    p99: float


def idle(contender: Contender, count: int) -> Idle:
    """Its receiver runs; a worker is started, and warmed by ten events that do not count."""
    contender.wipe()
    worker = contender.start(contender.worker(), "idle", BENCH_EFFECT="stamp")
    try:
        waits = [_wait(contender, worker, body) for body in bodies(10 + count)][10:]
    finally:
        worker.stop()
    waits.sort()
    return Idle(percentile(waits, 50), percentile(waits, 99))


def _wait(contender: Contender, worker: Part, body: bytes) -> float:
    _send(contender.port, body)
    acknowledged = time.time()
    told: Any = contender.client.blpop([STARTED], LONGEST_SECONDS)
    if not told:
        raise TimeoutError(f"waited {LONGEST_SECONDS} s for a handler to start; see {worker.log}")
    time.sleep(PAUSE_SECONDS)
    return (float(told[1]) - acknowledged) * 1000


def _send(port: int, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    signed = {"Stripe-Signature": stripe_events.signature(body, SECRET, int(time.time()))}
    connection.request("POST", "/stripe-webhook", body, signed)
    answer = connection.getresponse()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"answered {answer.status}")
