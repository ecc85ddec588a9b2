"""What grows with the record and what does not: `python -m bench.growth [--most 1000000]`.

Fills a Valkey, by the real record script, with events that are owed; then, in an empty one, with events that are done
and keep their payload; then with events that are done and have aged away. On the way it measures acknowledgements,
sweeps and pages of the console, and the bytes that one event costs; at the top, how long the server takes to start on
its file, and how fast workers get through what is owed.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import requests

from bench import growth_page
from bench.backlog import left
from bench.contenders import Holdfast
from bench.events import bodies
from bench.growth_model import Growth, Kind, Level
from bench.load import paced, percentile
from bench.processes import ROOT
from bench.results import machine
from dev.stack.servers import Valkey, wait_until
from dev.stack.signals import end_by_exception
from inbox.errors import StoreUnavailable
from inbox.event import Arrival, Event
from inbox.job import NewJob, job_id
from inbox.store import DAY_MS, PREFIX, Rules, Store, connect
from tasks import broker
from tasks.routes import QUEUES

STEPS = 4
RATE = 200  # acknowledgements a second while it is measured, far from the receiver's most
SECONDS = 10
LOOKS = 100
BATCH = 500
WORKERS = 2
DRAIN_SECONDS = 60
RESTART_SECONDS = 300  # at most
AGED_MS = (Rules().payload_days + 1) * DAY_MS
KEY = "a-key-for-the-console"
PAGES = ("", "events", "events?type=none", "dead")  # the overview, two lists, and the search that finds nothing


class Grown:
    """A receiver, its console, and the store that fills."""

    def __init__(self, ours: Holdfast, most: int) -> None:
        self.ours, self.most = ours, most
        self.store = Store(connect(ours.valkey.url, timeout_seconds=60), message=broker.message)
        self.console = requests.Session()
        self.console.post(f"http://127.0.0.1:{ours.port}/console/sign-in", data={"key": KEY}, timeout=10)

    def kind(self, fill: Callable[[int], None]) -> Kind:
        """Fill an empty store step by step, and look at each."""
        self.ours.wipe()
        levels, grown = [self._level(0)], 0
        for step in range(1, STEPS + 1):
            before = self.store.memory()[0]
            self.ours.client.config_set("appendfsync", "no")  # while it fills
            fill(self.most // STEPS)
            self.ours.client.config_set("appendfsync", "always")
            grown += self.store.memory()[0] - before
            levels.append(self._level(self.most // STEPS * step))
            print(levels[-1], flush=True)
        return Kind(tuple(levels), grown / (self.most // STEPS * STEPS), self._restart())

    def _level(self, events: int) -> Level:
        load = paced(self.ours.port, RATE, SECONDS, 8)
        sweeps = sorted(_timed(lambda: self.store.sweep(200, dict.fromkeys(QUEUES, 100))) for _ in range(LOOKS))
        pages = tuple(statistics.median(self._page(path) for _ in range(LOOKS // 5)) for path in PAGES)
        return Level(events, load.p50, load.p99, percentile(sweeps, 50), percentile(sweeps, 99), pages)

    def _page(self, path: str) -> float:
        url = f"http://127.0.0.1:{self.ours.port}/console/{path}"
        return _timed(lambda: self.console.get(url, timeout=30, allow_redirects=False).raise_for_status())

    def _restart(self) -> float:
        self.ours.valkey.kill()
        return _timed(lambda: self.ours.valkey.start(RESTART_SECONDS)) / 1000

    def drain(self) -> float:
        """Jobs a second, for a minute or until all is done, once the workers are warm."""
        command = self.ours.worker()
        with ExitStack() as stack:
            for number in range(WORKERS):
                part = self.ours.start([*command, "-n", f"{number}@%h"], f"drain-{number}", BENCH_EFFECT="nothing")
                stack.callback(part.stop)
            most = left(self.ours)
            wait_until(lambda: left(self.ours) < most * 0.98, seconds=120, what="the workers to begin")
            first, began = left(self.ours), time.monotonic()
            while left(self.ours) and time.monotonic() < began + DRAIN_SECONDS:
                time.sleep(0.2)
            return (first - left(self.ours)) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth")
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="the folder of the page")
    wanted = parser.parse_args()
    end_by_exception()
    about = machine()
    folder = ROOT / "var" / "growth"
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as stack:
        valkey = Valkey(folder / "valkey").start()
        stack.callback(valkey.kill)
        ours = Holdfast(valkey, ROOT / "var" / "bench", folder)
        ours.prepare()
        web = ours.start(ours.web(), "web", API_KEYS=KEY)
        stack.callback(web.stop)
        web.wait_for(ours.port)
        found = measure(ours, wanted.most)
    print(growth_page.write(found, about, wanted.report))


def measure(ours: Holdfast, most: int) -> Growth:
    grown = Grown(ours, most)
    now = grown.store
    then = Store(connect(ours.valkey.url, timeout_seconds=60), now_ms=lambda: int(time.time() * 1000) - AGED_MS)
    paced(ours.port, RATE, 2, 8)  # warm
    owed = grown.kind(lambda count: _fill(now, _owed(count)))
    drained = grown.drain()
    stored = grown.kind(lambda count: _fill(now, _done(count)))
    remembered = grown.kind(lambda count: _age(then, now, count))
    (body,) = bodies(1)
    return Growth(owed, stored, remembered, len(body), len(zlib.compress(body, 9)), drained)


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _owed(count: int) -> Iterator[Arrival]:
    for body in bodies(count):
        event = body.split(b'"id": "')[1].split(b'"')[0].decode()
        task = "tasks.payments.payment_failed"
        job = NewJob(
            job_id("stripe", event, "payments.payment_failed"), task, "payments", ordering_key=f"stripe:{event}"
        )
        yield Arrival(Event("stripe", event, "invoice.payment_failed", body), (job,))


def _done(count: int) -> Iterator[Arrival]:
    """An event of which nothing is to be done is done as it comes."""
    return (Arrival(arrival.event, ()) for arrival in _owed(count))


def _age(then: Store, now: Store, count: int) -> None:
    """Events that came, and were settled, so long ago that all but their ids has aged away by now."""
    _fill(then, _done(count))
    while now.client.zcount(PREFIX + "events", "-inf", now.now_ms() - AGED_MS + DAY_MS):
        now.sweep(200, {})


def _fill(store: Store, arrivals: Iterator[Arrival]) -> None:
    """As the receiver records them, many to a round trip. Raises StoreUnavailable."""
    while batch := list(islice(arrivals, BATCH)):
        for outcome in store.record_all(batch):
            if isinstance(outcome, StoreUnavailable):
                raise outcome


if __name__ == "__main__":
    main()
