"""Cost of a growing record: `make growth` writes docs/growth.md.

Fills an empty Valkey, through the real record script, with unfinished events, then (emptied) with finished events that
keep their payload, then with finished events of which only the id is left. At several sizes it measures
acknowledgements, sweeps, console pages and the memory per event; at the largest size also the restart of the server
and the throughput of workers.
"""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import requests

from bench.backlog import new_events, record
from bench.contenders import Holdfast, holdfast_in
from bench.events import bodies
from bench.load import paced, percentile
from bench.output import markdown_table, parse_arguments, template
from bench.results import machine
from dev import plot
from dev.stack.servers import wait_until
from inbox.event import NewEvent
from inbox.store import DAY_MS, PREFIX, Rules, Store, connect
from tasks import broker
from tasks.routes import QUEUES

STEPS = 4
RATE, SECONDS = 200, 10  # acknowledgements; far below the receiver's maximum
SWEEPS, PAGE_LOADS = 100, 20
WORKERS, DRAIN_SECONDS = 2, 60
MAX_RESTART_SECONDS = 300
EXPIRED_MS = (Rules().payload_days + 1) * DAY_MS
GOAL_BYTES = 64  # per event of which only the id is left
KEY = "a-key-for-the-console"
PAGES = ("", "events", "events?type=none", "dead")  # the last but one finds nothing
COLUMNS = ("events", "ack p50", "ack p99", "sweep p50", "sweep p99", "overview", "event list", "empty search", "dead")


Level = dict[str, float]  # by COLUMNS: the number of events in the record, and milliseconds with so many


@dataclass(frozen=True, slots=True)
class Kind:
    """Measurements for one kind of events. `bytes_each`: growth of the server's memory per event; `restart_seconds`:
    from the server's start to its first response, at the last level."""

    levels: list[Level]
    bytes_each: float
    restart_seconds: float


class GrowingRecord:
    """A receiver with its console, and the record that is filled step by step."""

    def __init__(self, ours: Holdfast, most: int) -> None:
        self.ours, self.step = ours, most // STEPS
        self.store = Store(connect(ours.valkey.url, timeout_seconds=60), message=broker.task_message)
        self.console = requests.Session()
        self.console.post(self._url("sign-in"), data={"key": KEY}, timeout=10)

    def measure(self, fill: Callable[[int], None]) -> Kind:
        """Empty the record, then fill it in STEPS steps and measure after each."""
        self.ours.wipe()
        levels, grown = [self._level(0)], 0
        for number in range(1, STEPS + 1):
            before = self.store.memory()[0]
            self.ours.client.config_set("appendfsync", "no")  # only while it is filled
            fill(self.step)
            self.ours.client.config_set("appendfsync", "always")
            grown += self.store.memory()[0] - before
            levels.append(self._level(self.step * number))
            print(_cells(levels[-1]), flush=True)
        self.ours.valkey.kill()
        restart = _ms(lambda: self.ours.valkey.start(MAX_RESTART_SECONDS)) / 1000
        return Kind(levels, grown / (self.step * STEPS), restart)

    def _level(self, events: int) -> Level:
        load = paced(self.ours.port, RATE, SECONDS, 8)
        sweeps = sorted(_ms(lambda: self.store.sweep(200, dict.fromkeys(QUEUES, 100))) for _ in range(SWEEPS))
        pages = [statistics.median(self._page_ms(page) for _ in range(PAGE_LOADS)) for page in PAGES]
        acks = (load.figures["p50"], load.figures["p99"])
        sweep = (percentile(sweeps, 50), percentile(sweeps, 99))
        return dict(zip(COLUMNS, (events, *acks, *sweep, *pages), strict=True))

    def _page_ms(self, page: str) -> float:
        return _ms(lambda: self.console.get(self._url(page), timeout=30, allow_redirects=False).raise_for_status())

    def _url(self, page: str) -> str:
        return f"http://127.0.0.1:{self.ours.port}/console/{page}"

    def drain(self) -> float:
        """Jobs per second of WORKERS warm worker processes, over at most DRAIN_SECONDS."""
        left, most = self.ours.unfinished, self.ours.unfinished()
        with ExitStack() as stack:
            self.ours.workers(WORKERS, stack)
            wait_until(lambda: left() < most * 0.98, seconds=120, what="the workers' first jobs")
            first, began = left(), time.monotonic()
            while left() and time.monotonic() < began + DRAIN_SECONDS:
                time.sleep(0.2)
            return (first - left()) / (time.monotonic() - began)


def main() -> None:
    arguments = parse_arguments("bench.growth", most=1_000_000)
    about = machine()
    with holdfast_in("growth") as ours, ExitStack() as stack:
        ours.start_web(stack, API_KEYS=KEY)
        paced(ours.port, RATE, 2, 8)  # warm up
        growing = GrowingRecord(ours, arguments.most)
        store = growing.store
        old = Store(connect(ours.valkey.url, timeout_seconds=60), now_ms=lambda: int(time.time() * 1000) - EXPIRED_MS)
        kinds = {"unfinished": growing.measure(lambda count: record(store, new_events(count)))}
        drained = growing.drain()
        kinds["finished"] = growing.measure(lambda count: record(store, _finished(count)))
        kinds["id_only"] = growing.measure(lambda count: _add_expired(old, store, count))
    print(write(kinds, drained, about, arguments.report))


def _ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _finished(count: int) -> Iterator[NewEvent]:
    """Events without jobs: they are finished when they are recorded."""
    return (NewEvent(arrival.event, ()) for arrival in new_events(count))


def _add_expired(old: Store, store: Store, count: int) -> None:
    """Record finished events with the clock of `old`, and prune until only their ids are left."""
    record(old, _finished(count))
    while store.client.zcount(PREFIX + "events", "-inf", store.now_ms() - EXPIRED_MS + DAY_MS):
        store.sweep(200, {})


def write(kinds: dict[str, Kind], drained: float, about: str, folder: Path) -> str:
    """Write growth.md and growth.svg to `folder`; returns the page."""
    series = {f"ack p99, {name.replace('_', ' ')}": _points(kind, "ack p99") for name, kind in kinds.items()}
    series["sweep p99, unfinished"] = _points(kinds["unfinished"], "sweep p99")
    (folder / "growth.svg").write_text(plot.lines("Time as the record grows", series, ("events", "ms")))
    most = kinds["unfinished"].levels[-1]["events"]
    (body,) = bodies(1)
    page = template("growth.md").format(
        about=about,
        payload=f"{len(body):,}",
        compressed=f"{len(zlib.compress(body, 9)):,}",
        goal=GOAL_BYTES,
        verdict="met" if kinds["id_only"].bytes_each <= GOAL_BYTES else "**missed**",
        most=f"{most:,.0f}",
        drained=f"{drained:,.0f}",
        minutes=f"{most / drained / 60:.0f}",
        **{name: markdown_table(COLUMNS, map(_cells, kind.levels)) for name, kind in kinds.items()},
        **{f"{name}_bytes": f"{kind.bytes_each:,.0f}" for name, kind in kinds.items()},
        **{f"{name}_restart": f"{kind.restart_seconds:.1f}" for name, kind in kinds.items()},
    )
    (folder / "growth.md").write_text(page)
    return page


def _points(kind: Kind, column: str) -> list[plot.Point]:
    return [(level["events"], level[column]) for level in kind.levels]


def _cells(level: Level) -> list[str]:
    return [f"{value:,.0f}" if column == "events" else f"{value:.1f}" for column, value in level.items()]


if __name__ == "__main__":
    main()
