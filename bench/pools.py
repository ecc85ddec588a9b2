"""Which pool, and how many: `python -m bench.pools`, the figures of docs/decisions/0007.

Jobs that do nothing, and jobs that wait 50 ms for a peer, as those do that call out; a full queue and one worker.
Threads and gevent are given Celery's prefetch: without it Celery takes a message only when something else wakes it.
gevent is measured where it is installed; it is none of our dependencies.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from dataclasses import dataclass
from statistics import median

import psutil

from bench.backlog import holdfast
from bench.contenders import Holdfast
from bench.processes import ROOT, Part
from bench.rounds import drained
from dev.stack.servers import Valkey
from dev.stack.signals import end_by_exception

POOLS = [("prefork", 1), ("prefork", 2), ("prefork", 8), ("threads", 8), ("gevent", 8)]
JOBS = {"nothing": 3000, "wait": 600}


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU microseconds a job, jobs a second, megabytes of memory of all its processes (shared pages counted once)."""

    cpu_us: float
    per_second: float
    megabytes: float


def measure(ours: Holdfast, pool: str, count: int, effect: str) -> Measured:
    """One worker with that pool, at a full queue."""
    ours.wipe()
    command, left = holdfast(ours, JOBS[effect])
    prefetch = "off" if pool == "prefork" else "on"
    at = command.index("-c")
    command[at + 1] = str(count)
    worker = ours.start([*command, "-P", pool], "pool", BENCH_EFFECT=effect, BENCH_PREFETCH=prefetch)
    try:
        found = drained(ours, [worker], left)
        return Measured(found.worker_us, found.per_second, _megabytes(worker))
    finally:
        worker.stop()


def _megabytes(worker: Part) -> float:
    root = psutil.Process(worker.process.pid)
    family = [root, *root.children(recursive=True)]
    return sum(float(one.memory_full_info().pss) for one in family) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pools")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    end_by_exception()
    folder = ROOT / "var" / "pools"
    shutil.rmtree(folder, ignore_errors=True)
    valkey = Valkey(folder / "valkey").start()
    try:
        ours = Holdfast(valkey, ROOT / "var" / "bench", folder)
        ours.prepare()
        print(table(rounds(ours, wanted.rounds)))
    finally:
        valkey.kill()


def rounds(ours: Holdfast, count: int) -> dict[tuple[str, int, str], list[Measured]]:
    """All pools in turn, round by round, so that a busy minute hits all alike."""
    found: dict[tuple[str, int, str], list[Measured]] = {}
    here = [(pool, size) for pool, size in POOLS if pool != "gevent" or importlib.util.find_spec("gevent")]
    for _ in range(count):
        for pool, size in here:
            for effect in JOBS:
                found.setdefault((pool, size, effect), []).append(measure(ours, pool, size, effect))
    return found


def table(found: dict[tuple[str, int, str], list[Measured]]) -> str:
    rows = ["| pool | jobs that | CPU us / job | jobs/s | MB |", "|---|---|---|---|---|"]
    for (pool, size, effect), kept in found.items():
        cpu, speed, memory = (median(getattr(one, name) for one in kept) for name in Measured.__slots__)
        rows.append(f"| {pool}, {size} | {effect} | {cpu:,.0f} | {speed:,.0f} | {memory:,.0f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
