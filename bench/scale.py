"""What another process brings, and where the one store is full: `python -m bench.scale`, the page docs/scaling.md.

Measures one receiver process and two, one worker process and two, as far as this machine's cores go; then simulates
more of them with the costs found (bench/queueing.py), because here they would only take each other's cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import plot, rounds
from bench.backlog import holdfast
from bench.contenders import Holdfast
from bench.processes import ROOT
from bench.queueing import Costs, Outcome, Simulation
from bench.results import machine
from dev.stack.servers import Valkey, wait_until
from dev.stack.signals import end_by_exception

ROUNDS, SECONDS, JOBS = 5, 5, 6000
RATES = (250, 500, 1000, 1500, 2000, 2500, 3000, 4000)
SIMULATED_SECONDS = 8
LONGEST_MS = 50  # p99 of an acknowledgement
HEAD = Path(__file__).parent / "scale.md"


@dataclass(frozen=True, slots=True)
class Measured:
    """So many processes: what one event costs them and the store in microseconds of CPU, and events a second."""

    processes: int
    own_us: float
    store_us: float
    per_second: float


@dataclass(frozen=True, slots=True)
class Needed:
    """The fewest processes that keep up with a rate, as the simulation says."""

    rate: int
    receivers: int
    workers: int
    outcome: Outcome


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale")
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="the folder of the page")
    wanted = parser.parse_args()
    end_by_exception()
    about, folder = machine(), ROOT / "var" / "scale"
    shutil.rmtree(folder, ignore_errors=True)
    valkey = Valkey(folder / "valkey").start()
    try:
        ours = Holdfast(valkey, ROOT / "var" / "bench", folder)
        ours.prepare()
        counts = range(1, (os.cpu_count() or 1) + 1)
        receivers, workers = _in_turn(_receivers, ours, counts), _in_turn(_workers, ours, counts)
        fsync = _fsync_seconds(ours)
    finally:
        valkey.kill()
    print(write(receivers, workers, fsync, about, wanted.report))


def _receivers(ours: Holdfast, count: int) -> Measured:
    """`count` receiver processes at their most."""
    with ExitStack() as stack:
        web = ours.start(ours.web(), "web", WEB_PROCESSES=str(count))
        stack.callback(web.stop)
        wait_until(
            lambda: web.log.read_text().count("startup complete") == count, seconds=60, what="each of them to serve"
        )
        found = rounds.acks(ours, web, SECONDS)
    return Measured(count, found.web_us, found.store_us, found.per_second)


def _workers(ours: Holdfast, count: int) -> Measured:
    """`count` worker processes at a full queue of jobs that do nothing."""
    ours.wipe()
    command, left = holdfast(ours, JOBS * count)
    with ExitStack() as stack:
        parts = [ours.start([*command, "-n", f"{n}@%h"], f"worker-{n}", BENCH_EFFECT="nothing") for n in range(count)]
        for part in parts:
            stack.callback(part.stop)
        found = rounds.drained(ours, parts, left)
    return Measured(count, found.worker_us, found.store_us, found.per_second)


def _fsync_seconds(ours: Holdfast) -> float:
    """What a small write takes longer when it is on disk before its answer."""
    always = _set_seconds(ours)
    ours.client.config_set("appendfsync", "no")
    never = _set_seconds(ours)
    ours.client.config_set("appendfsync", "always")
    return always - never


def _set_seconds(ours: Holdfast) -> float:
    took = []
    for _ in range(500):
        began = time.perf_counter()
        ours.client.set("a", "b")
        took.append(time.perf_counter() - began)
    return median(took)


def _in_turn(measure: Callable[[Holdfast, int], Measured], ours: Holdfast, counts: Sequence[int]) -> list[Measured]:
    """For each count, the round in the middle. Within a round in turn, so that a busy minute hits all alike."""
    rounds = [[measure(ours, count) for count in counts] for _ in range(ROUNDS)]
    return [_middle(found) for found in zip(*rounds, strict=True)]


def _middle(found: Sequence[Measured]) -> Measured:
    """The round in the middle, by CPU."""
    return sorted(found, key=lambda one: one.own_us)[len(found) // 2]


def needed(costs: Costs, rate: int) -> Needed | None:
    """The fewest processes with which p99 stays under LONGEST_MS and the jobs keep up; None if no number does."""
    receivers, workers = 1, 1
    while receivers + workers < 100:
        outcome = Simulation(costs, rate, receivers, workers).run(SIMULATED_SECONDS)
        if outcome.p99 < LONGEST_MS and outcome.done > 0.99:
            return Needed(rate, receivers, workers, outcome)
        if outcome.store > 0.99:
            return None
        receivers += outcome.p99 >= LONGEST_MS
        workers += outcome.done <= 0.99
    return None


def write(receivers: Sequence[Measured], workers: Sequence[Measured], fsync: float, about: str, folder: Path) -> str:
    """docs/scaling.md and its picture; returns the page."""
    one, other = receivers[0], workers[0]
    costs = Costs(one.own_us / 1e6, one.store_us / 1e6, other.own_us / 1e6, other.store_us / 1e6, fsync)
    found = {rate: needed(costs, rate) for rate in RATES}
    kept = [it for it in found.values() if it]
    series = {
        "p99 of an ack, ms": [(it.rate, it.outcome.p99) for it in kept],
        "store, % of its core": [(it.rate, it.outcome.store * 100) for it in kept],
    }
    (folder / "scaling.svg").write_text(plot.lines("One store, as many processes as it takes", series, "events/s", ""))
    most = 1 / (costs.store_ack + costs.store_job)
    page = HEAD.read_text().format(
        about=about,
        receivers=_table("receiver", receivers),
        workers=_table("worker", workers),
        fsync=f"{fsync * 1e6:,.0f}",
        simulated="\n".join(_row(rate, it) for rate, it in found.items()),
        most=f"{most:,.0f}",
        each=f"{costs.store_job * 1e6:,.0f}",
        longest=LONGEST_MS,
    )
    (folder / "scaling.md").write_text(page)
    return page


def _table(what: str, found: Sequence[Measured]) -> str:
    head = f"| {what} processes | events/s | times one | its CPU, us | the store's CPU, us |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {one.processes} | {one.per_second:,.0f} | {one.per_second / found[0].per_second:.2f}"
        f" | {one.own_us:,.0f} | {one.store_us:,.0f} |"
        for one in found
    )


def _row(rate: int, it: Needed | None) -> str:
    if it is None:
        return f"| {rate:,} | more than the store can do | | | |"
    shown = it.outcome
    return f"| {rate:,} | {it.receivers} | {it.workers} | {shown.p50:.1f} / {shown.p99:.1f} | {shown.store:.0%} |"


if __name__ == "__main__":
    main()
