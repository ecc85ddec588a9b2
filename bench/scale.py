"""Gain of more receiver and worker processes, and the limit of the one store: `make scale` writes docs/scaling.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from bench import rounds
from bench.backlog import fill_record
from bench.contenders import Holdfast, holdfast_in
from bench.output import markdown_table, parse_arguments, template
from bench.results import machine
from bench.rounds import Figures
from dev.stack.servers import wait_until

ROUNDS, SECONDS, JOBS = 5, 5, 6000


def main() -> None:
    folder, about = parse_arguments("bench.scale").report, machine()
    with holdfast_in("scale") as ours:
        counts = range(1, (os.cpu_count() or 1) + 1)
        receivers = _median_rounds(_receivers, "web_us", ours, counts)
        workers = _median_rounds(_workers, "worker_us", ours, counts)
        fsync = _fsync_seconds(ours)
    page = template("scale.md").format(
        about=about,
        receivers=_table("receiver", "web_us", receivers),
        workers=_table("worker", "worker_us", workers),
        fsync=f"{fsync * 1e6:,.0f}",
        most=f"{1e6 / (receivers[0]['store_us'] + workers[0]['store_us']):,.0f}",
        each=f"{workers[0]['store_us']:,.0f}",
    )
    (folder / "scaling.md").write_text(page)
    print(page)


def _receivers(ours: Holdfast, count: int) -> Figures:
    """`count` receiver processes at their maximum rate."""
    with ExitStack() as stack:
        web = ours.start_web(stack, WEB_PROCESSES=str(count))
        wait_until(
            lambda: web.log.read_text().count("startup complete") == count, seconds=60, what="every receiver process"
        )
        return rounds.acks(ours, web, SECONDS)


def _workers(ours: Holdfast, count: int) -> Figures:
    """`count` worker processes on a full queue of jobs that only write their effect row."""
    ours.wipe()
    fill_record(ours, JOBS * count)
    with ExitStack() as stack:
        return rounds.drained(ours, ours.workers(count, stack), ours.unfinished)


def _fsync_seconds(ours: Holdfast) -> float:
    """Difference between a small write with and without an fsync before the response."""
    seconds: dict[str, list[float]] = {"no": [], "always": []}
    for policy, measured in seconds.items():
        ours.client.config_set("appendfsync", policy)
        for _ in range(500):
            began = time.perf_counter()
            ours.client.set("a", "b")
            measured.append(time.perf_counter() - began)
    return median(seconds["always"]) - median(seconds["no"])


def _median_rounds(
    measure: Callable[[Holdfast, int], Figures], cpu: str, ours: Holdfast, counts: Sequence[int]
) -> list[Figures]:
    """The median round, by the figure `cpu`, for each count of processes.

    The counts alternate, so that other load on the machine affects all.
    """
    found = [[measure(ours, count) for count in counts] for _ in range(ROUNDS)]
    return [sorted(one, key=lambda figures: figures[cpu])[ROUNDS // 2] for one in zip(*found, strict=True)]


def _table(what: str, cpu: str, found: Sequence[Figures]) -> str:
    head = (f"{what} processes", "events/s", "relative to one", "its CPU, us", "the store's CPU, us")
    rows = []
    for processes, figures in enumerate(found, 1):
        rate, alone = figures["per_second"], found[0]["per_second"]
        costs = (f"{figures[cpu]:,.0f}", f"{figures['store_us']:,.0f}")
        rows.append((str(processes), f"{rate:,.0f}", f"{rate / alone:.2f}", *costs))
    return markdown_table(head, rows)


if __name__ == "__main__":
    main()
