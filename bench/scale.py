"""Gain of more receiver and worker processes, and the limit of the one store: `make scale` writes docs/scaling.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from bench import rounds
from bench.backlog import fill_record
from bench.contenders import Holdfast, holdfast_in
from bench.output import markdown_table, parse_arguments, template
from bench.results import machine
from dev.stack.servers import wait_until

ROUNDS, SECONDS, JOBS = 5, 5, 6000


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU microseconds per event of `processes` processes together and of the store, and events per second."""

    processes: int
    own_us: float
    store_us: float
    per_second: float


def main() -> None:
    folder, about = parse_arguments("bench.scale").report, machine()
    with holdfast_in("scale") as ours:
        counts = range(1, (os.cpu_count() or 1) + 1)
        receivers, workers = _median_rounds(_receivers, ours, counts), _median_rounds(_workers, ours, counts)
        fsync = _fsync_seconds(ours)
    page = _page(receivers, workers, fsync, about)
    (folder / "scaling.md").write_text(page)
    print(page)


def _receivers(ours: Holdfast, count: int) -> Measured:
    """`count` receiver processes at their maximum rate."""
    with ExitStack() as stack:
        web = ours.start(ours.web(), "web", WEB_PROCESSES=str(count))
        stack.callback(web.stop)
        wait_until(
            lambda: web.log.read_text().count("startup complete") == count, seconds=60, what="every receiver process"
        )
        found = rounds.acks(ours, web, SECONDS)
    return Measured(count, found.web_us, found.store_us, found.per_second)


def _workers(ours: Holdfast, count: int) -> Measured:
    """`count` worker processes on a full queue of jobs that only write their effect row."""
    ours.wipe()
    fill_record(ours, JOBS * count)
    with ExitStack() as stack:
        found = rounds.drained(ours, ours.workers(count, stack), ours.unfinished)
    return Measured(count, found.worker_us, found.store_us, found.per_second)


def _fsync_seconds(ours: Holdfast) -> float:
    """Difference between a small write with and without an fsync before the response."""
    with_fsync = _set_seconds(ours)
    ours.client.config_set("appendfsync", "no")
    without_fsync = _set_seconds(ours)
    ours.client.config_set("appendfsync", "always")
    return with_fsync - without_fsync


def _set_seconds(ours: Holdfast) -> float:
    seconds = []
    for _ in range(500):
        began = time.perf_counter()
        ours.client.set("a", "b")
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def _median_rounds(
    measure: Callable[[Holdfast, int], Measured], ours: Holdfast, counts: Sequence[int]
) -> list[Measured]:
    """The median round (by CPU) for each count. The counts alternate, so that other load on the machine affects all."""
    found = [[measure(ours, count) for count in counts] for _ in range(ROUNDS)]
    return [sorted(one, key=lambda it: it.own_us)[ROUNDS // 2] for one in zip(*found, strict=True)]


def _page(receivers: Sequence[Measured], workers: Sequence[Measured], fsync: float, about: str) -> str:
    return template("scale.md").format(
        about=about,
        receivers=_table("receiver", receivers),
        workers=_table("worker", workers),
        fsync=f"{fsync * 1e6:,.0f}",
        most=f"{1e6 / (receivers[0].store_us + workers[0].store_us):,.0f}",
        each=f"{workers[0].store_us:,.0f}",
    )


def _table(what: str, found: Sequence[Measured]) -> str:
    return markdown_table(
        (f"{what} processes", "events/s", "relative to one", "its CPU, us", "the store's CPU, us"),
        [
            (
                f"{one.processes}",
                f"{one.per_second:,.0f}",
                f"{one.per_second / found[0].per_second:.2f}",
                f"{one.own_us:,.0f}",
                f"{one.store_us:,.0f}",
            )
            for one in found
        ],
    )


if __name__ == "__main__":
    main()
