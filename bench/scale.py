"""Gain of more receiver and worker processes, and the limit of the one store: `make scale` writes docs/scaling.md."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median

from bench import rounds
from bench.contenders import Holdfast, holdfast_in
from bench.load import Figures
from bench.output import machine, parse_arguments, write_page
from dev import plot
from dev.stack.servers import wait_until

ROUNDS, SECONDS, JOBS = 5, 5, 6000


def main() -> None:
    folder, about = parse_arguments("bench.scale").report, machine()
    with holdfast_in("scale") as (ours, _):
        receivers = _median_rounds(lambda count: _receivers(ours, count), "web_us")
        workers = _median_rounds(lambda count: rounds.drain(ours, JOBS * count, count), "worker_us")
        fsync = _fsync_seconds(ours)
    write_page(
        folder / "scaling.md",
        "scale.md",
        about=about,
        receivers=_table("receiver", "web_us", receivers),
        workers=_table("worker", "worker_us", workers),
        fsync=f"{fsync * 1e6:,.0f}",
        most=f"{1e6 / (receivers[0]['store_us'] + workers[0]['store_us']):,.0f}",
        each=f"{workers[0]['store_us']:,.0f}",
    )


def _receivers(ours: Holdfast, count: int) -> Figures:
    """`count` receiver processes at their maximum rate."""
    with ExitStack() as stack:
        ours.start_receiver(stack, WEB_PROCESSES=str(count))
        log = ours.receiver.log
        wait_until(lambda: log.read_text().count("startup complete") == count, seconds=60, what=f"receivers; see {log}")
        return rounds.acks(ours, SECONDS)


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


def _median_rounds(measure: Callable[[int], Figures], cpu: str) -> list[Figures]:
    """The median round, by the figure `cpu`, for one process and for more, up to one on each core.

    The numbers of processes alternate, so that other load on the machine affects all.
    """
    found = [[measure(processes + 1) for processes in range(os.cpu_count() or 1)] for _ in range(ROUNDS)]
    return [sorted(one, key=lambda figures: figures[cpu])[ROUNDS // 2] for one in zip(*found, strict=True)]


def _table(what: str, cpu: str, found: Sequence[Figures]) -> str:
    head = (f"{what} processes", "events/s", "relative to one", "its CPU, us", "the store's CPU, us")
    rows = []
    for processes, figures in enumerate(found, 1):
        rate, alone = figures["per_second"], found[0]["per_second"]
        costs = (f"{figures[cpu]:,.0f}", f"{figures['store_us']:,.0f}")
        rows.append((str(processes), f"{rate:,.0f}", f"{rate / alone:.2f}", *costs))
    return plot.markdown_table(head, rows)


if __name__ == "__main__":
    main()
