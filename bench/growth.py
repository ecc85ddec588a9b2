"""What grows with the record and what does not: `python -m bench.growth [--most 1000000]`.

Fills a Valkey, by the real record script, with events that are owed, and then with events that are done and have aged
away; on the way it measures acknowledgements, sweeps and lists, and the bytes that one event costs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench import plot
from bench.contenders import Holdfast
from bench.events import bodies
from bench.load import paced, percentile
from bench.processes import ROOT
from bench.results import machine
from dev.servers import Valkey
from dev.signals import end_by_exception
from inbox import find
from inbox.errors import StoreUnavailable
from inbox.event import Arrival, Event
from inbox.job import NewJob, job_id
from inbox.store import DAY_MS, PREFIX, Rules, Store, connect
from tasks import broker
from tasks.routes import QUEUES

STEPS = 4
RATE = 200  # acknowledgements a second while it is measured, far from the receiver's most
SECONDS = 5
LOOKS = 100
BATCH = 500
AGED_MS = (Rules().payload_days + 1) * DAY_MS


@dataclass(frozen=True, slots=True)
class Level:
    """Milliseconds at so many events."""

    events: int
    ack_p50: float
    ack_p99: float
    sweep_p50: float
    sweep_p99: float
    page_p50: float


@dataclass(frozen=True, slots=True)
class Growth:
    owed: list[Level]
    remembered: list[Level]
    bytes_owed: float
    bytes_remembered: float


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
        web = ours.start(ours.web(), "web")
        stack.callback(web.stop)
        web.wait_for(ours.port)
        found = measure(ours, wanted.most)
    page = page_of(found, about, wanted.report)
    print(page)


def measure(ours: Holdfast, most: int) -> Growth:
    """First the owed, then, in an empty store, those of which only the id is left."""
    now = Store(connect(ours.valkey.url, timeout_seconds=60), message=broker.message)
    then = Store(connect(ours.valkey.url, timeout_seconds=60), now_ms=lambda: int(time.time() * 1000) - AGED_MS)
    paced(ours.port, RATE, 2, 8)  # warm
    owed, bytes_owed = _levels(ours, now, most, lambda count: _fill(now, _owed(count)))
    remembered, bytes_remembered = _levels(ours, now, most, lambda count: _age(then, now, count))
    return Growth(owed, remembered, bytes_owed, bytes_remembered)


def _levels(ours: Holdfast, store: Store, most: int, fill: Callable[[int], None]) -> tuple[list[Level], float]:
    """The levels, and the bytes of an event: what the server's memory grew by, over the events of the steps."""
    ours.wipe()
    levels, grown = [_level(ours, store, 0)], 0
    for step in range(1, STEPS + 1):
        before = store.memory()[0]
        fill(most // STEPS)
        grown += store.memory()[0] - before
        levels.append(_level(ours, store, most // STEPS * step))
        print(levels[-1], flush=True)
    return levels, grown / (most // STEPS * STEPS)


def _level(ours: Holdfast, store: Store, events: int) -> Level:
    load = paced(ours.port, RATE, SECONDS, 8)
    sweeps = sorted(_timed(lambda: store.sweep(200, dict.fromkeys(QUEUES, 100))) for _ in range(LOOKS))
    page = statistics.median(_timed(lambda: find.search(store, "events", find.Filter(), 50)) for _ in range(LOOKS))
    return Level(events, load.p50, load.p99, percentile(sweeps, 50), percentile(sweeps, 99), page)


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


def _age(then: Store, now: Store, count: int) -> None:
    """Events that came, and were settled, so long ago that all but their ids has aged away by now."""
    _fill(then, (Arrival(arrival.event, ()) for arrival in _owed(count)))
    while now.client.zcount(PREFIX + "events", "-inf", now.now_ms() - AGED_MS + DAY_MS):
        now.sweep(200, {})


def _fill(store: Store, arrivals: Iterator[Arrival]) -> None:
    """As the receiver records them, many to a round trip. Raises StoreUnavailable."""
    while batch := list(islice(arrivals, BATCH)):
        for outcome in store.record_all(batch):
            if isinstance(outcome, StoreUnavailable):
                raise outcome


def page_of(found: Growth, about: str, folder: Path) -> str:
    """docs/growth.md and its picture; returns the page."""
    series = {
        "ack p99, while so many are owed": [(level.events, level.ack_p99) for level in found.owed],
        "sweep p99, while so many are owed": [(level.events, level.sweep_p99) for level in found.owed],
        "ack p99, so many remembered": [(level.events, level.ack_p99) for level in found.remembered],
        "sweep p99, so many remembered": [(level.events, level.sweep_p99) for level in found.remembered],
    }
    (folder / "growth.svg").write_text(plot.lines("Time as the record grows", series, "events", "ms"))
    goal = "met" if found.bytes_remembered <= 64 else "**missed**"
    page = f"""# What grows with the record

Written by `python -m bench.growth`; do not edit. {about}.
{RATE} events of 3.7 KB a second through the receiver while it is measured; {LOOKS} sweeps, {LOOKS} first pages of
the list of events. Milliseconds, fsync before each reply included.

| | bytes each | goal |
|---|---|---|
| an event that is owed, its 3.7 KB body, job and doorbell included | {found.bytes_owed:,.0f} | |
| an event that is done and has aged away: its id | {found.bytes_remembered:.0f} | at most 64: {goal} |

## Owed

{_table(found.owed)}

## Done, and only the id left

{_table(found.remembered)}

![as the record grows](growth.svg)
"""
    (folder / "growth.md").write_text(page)
    return page


def _table(levels: list[Level]) -> str:
    head = "| events | ack p50 | ack p99 | sweep p50 | sweep p99 | page p50 |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {one.events:,} | {one.ack_p50:.1f} | {one.ack_p99:.1f} | {one.sweep_p50:.1f} | {one.sweep_p99:.1f} |"
        f" {one.page_p50:.1f} |"
        for one in levels
    )


if __name__ == "__main__":
    main()
