"""Cost of a growing record: `make growth` writes docs/growth.md.

Fills an empty Valkey, through the real record script, with unfinished events, then (emptied) with finished events that
keep their payload, then with finished events of which only the id is left. At several sizes it measures
acknowledgements, sweeps, console pages and the memory per event; at the largest size also the restart of the server
and the throughput of workers.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import requests

from bench.contenders import Holdfast, holdfast_in
from bench.events import bodies, new_events, record
from bench.load import at_rate, percentile, send
from bench.output import machine, parse_arguments, write_page
from dev import plot
from dev.stack.servers import wait_until
from inbox.event import NewEvent
from inbox.rules import DAY_MS, Rules
from inbox.store import PREFIX, Store
from tasks.routes import QUEUES

STEPS = 4
RATE, SECONDS = 200, 10  # acknowledgements; far below the receiver's maximum
SWEEPS, PAGE_LOADS = 100, 20
WORKERS, DRAIN_SECONDS = 2, 60
MAX_RESTART_SECONDS = 300
EXPIRED_MS = (Rules().payload_days + 1) * DAY_MS
GOAL_BYTES = 64  # per event of which only the id is left
KEY = "a-key-for-the-console-0123456789"
PAGES = {"overview": "", "event list": "events", "empty search": "events?type=none", "dead": "dead"}

Level = dict[str, float]  # by column: the number of events in the record, and milliseconds with so many


@dataclass(frozen=True, slots=True)
class Kind:
    """Measurements for one kind of events. `bytes_each`: growth of the server's memory per event; `restart_seconds`:
    from the server's start to its first response, at the last level."""

    levels: list[Level]
    bytes_each: float
    restart_seconds: float


def main() -> None:
    arguments = parse_arguments("bench.growth", most=1_000_000)
    about = machine()
    with holdfast_in("growth") as (ours, stack):
        ours.start_receiver(stack, API_KEYS=KEY)
        send(ours.port, 8, at_rate(RATE, 2))  # warm up
        step = arguments.most // STEPS
        kinds = {"unfinished": _measure(ours, step, ours.fill)}
        drained = _drained_per_second(ours)
        kinds["finished"] = _measure(ours, step, lambda count: record(ours.store, _finished(count)))
        kinds["id_only"] = _measure(ours, step, lambda count: _add_expired(ours, count))
    write(kinds, drained, about, arguments.report)


def _measure(ours: Holdfast, step: int, fill: Callable[[int], None]) -> Kind:
    """Empty the record, then fill it in STEPS steps and measure after each."""
    ours.wipe()
    levels, grown = [_level(ours, 0)], 0
    for number in range(1, STEPS + 1):
        before = ours.store.memory()[0]
        ours.client.config_set("appendfsync", "no")  # only while it is filled
        fill(step)
        ours.client.config_set("appendfsync", "always")
        grown += ours.store.memory()[0] - before
        levels.append(_level(ours, step * number))
        print(_cells(levels[-1]), flush=True)
    ours.valkey.kill()
    restart = _ms(lambda: ours.valkey.start(MAX_RESTART_SECONDS)) / 1000
    return Kind(levels, grown / (step * STEPS), restart)


def _level(ours: Holdfast, events: int) -> Level:
    acks = send(ours.port, 8, at_rate(RATE, SECONDS))
    sweeps = sorted(_ms(lambda: ours.store.sweep(200, dict.fromkeys(QUEUES, 100))) for _ in range(SWEEPS))
    return {
        "events": events,
        **{f"ack {name}": acks[name] for name in ("p50", "p99")},
        **{f"sweep p{percent}": percentile(sweeps, percent) for percent in (50, 99)},
        **_console_ms(f"http://127.0.0.1:{ours.port}/console/"),
    }


def _console_ms(url: str) -> Level:
    """Median milliseconds of each of PAGES."""
    console = requests.Session()
    console.post(f"{url}sign-in", data={"key": KEY}, timeout=10)

    def load(page: str) -> None:
        console.get(url + page, timeout=30, allow_redirects=False).raise_for_status()

    return {name: median(_ms(partial(load, page)) for _ in range(PAGE_LOADS)) for name, page in PAGES.items()}


def _ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _drained_per_second(ours: Holdfast) -> float:
    """Jobs per second of WORKERS warm worker processes, over at most DRAIN_SECONDS."""
    left, most = ours.unfinished, ours.unfinished()
    with ExitStack() as stack:
        ours.start_workers(WORKERS, stack)
        wait_until(lambda: left() < most * 0.98, seconds=120, what="the workers' first jobs")
        first, began = left(), time.monotonic()
        while left() and time.monotonic() < began + DRAIN_SECONDS:
            time.sleep(0.2)
        return (first - left()) / (time.monotonic() - began)


def _finished(count: int) -> Iterator[NewEvent]:
    """Events without jobs: they are finished when they are recorded."""
    return (NewEvent(arrival.event, ()) for arrival in new_events(count))


def _add_expired(ours: Holdfast, count: int) -> None:
    """Record finished events with a clock that is behind, and prune until only their ids are left."""
    record(Store(ours.client, now_ms=lambda: int(time.time() * 1000) - EXPIRED_MS), _finished(count))
    while ours.client.zcount(PREFIX + "events", "-inf", ours.store.now_ms() - EXPIRED_MS + DAY_MS):
        ours.store.sweep(200, {})


def write(kinds: dict[str, Kind], drained: float, about: str, folder: Path) -> None:
    """Write growth.md and growth.svg to `folder`."""
    series = {f"ack p99, {name.replace('_', ' ')}": _points(kind, "ack p99") for name, kind in kinds.items()}
    series["sweep p99, unfinished"] = _points(kinds["unfinished"], "sweep p99")
    (folder / "growth.svg").write_text(plot.lines("Time as the record grows", series, ("events", "ms")))
    most = kinds["unfinished"].levels[-1]["events"]
    body = next(bodies())
    write_page(
        folder / "growth.md",
        "growth.md",
        about=about,
        payload=f"{len(body):,}",
        compressed=f"{len(zlib.compress(body, 9)):,}",
        goal=str(GOAL_BYTES),
        verdict="met" if kinds["id_only"].bytes_each <= GOAL_BYTES else "**missed**",
        most=f"{most:,.0f}",
        drained=f"{drained:,.0f}",
        minutes=f"{most / drained / 60:.0f}",
        **{name: plot.markdown_table(kind.levels[0], map(_cells, kind.levels)) for name, kind in kinds.items()},
        **{f"{name}_bytes": f"{kind.bytes_each:,.0f}" for name, kind in kinds.items()},
        **{f"{name}_restart": f"{kind.restart_seconds:.1f}" for name, kind in kinds.items()},
    )


def _points(kind: Kind, column: str) -> list[plot.Point]:
    return [(level["events"], level[column]) for level in kind.levels]


def _cells(level: Level) -> list[str]:
    return [f"{value:,.0f}" if column == "events" else f"{value:.1f}" for column, value in level.items()]


if __name__ == "__main__":
    main()
