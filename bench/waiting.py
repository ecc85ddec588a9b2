"""Jobs that wait for another server: how many one worker does, with how much memory and CPU; writes docs/waiting.md.

python -m bench.waiting [--quick] [--report FOLDER]

Installed peers as in `make bench`, of which this is a part.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from itertools import repeat
from pathlib import Path
from statistics import median

import requests

from bench import report
from bench.bench import Bench
from bench.contenders import BullMQ, Contender, Dbos, Holdfast, celery_worker
from bench.events import signed_requests, subscription_bodies
from bench.load import Figures, send
from bench.output import parse_arguments, write_page
from bench.processes import ROOT, Part
from bench.rounds import CONNECTIONS, CpuMeter, Miscounted, check_recorded
from bench.slow_peer import CALLS, LATENCY_SECONDS
from dev import plot
from dev.stack.servers import free_port, wait_until

FULL, QUICK = (3, 20), (1, 10)  # rounds, and calls of each of the jobs that run at the same time
WARM, MEASURED = 0.1, 0.9  # between these shares of the jobs it is measured: not while workers start or run out of jobs
MAX_SECONDS = 180
GB = 1024**3
Waiting = Holdfast | BullMQ | Dbos

# Processes of Holdfast's worker, and the slots of each; then how many jobs a peer runs at the same time.
PROCESSES_AND_SLOTS = ((4, 1), (1, 32), (1, 64), (1, 128))
CONCURRENCY = {BullMQ: (4, 16, 100), Dbos: (16, 64)}

COLUMNS = {
    "per_second": "jobs/s",
    "memory_mb": "worker's memory, MB",
    "per_gb": "jobs/s per GB",
    "worker_us": "worker CPU / job, us",
    "store_us": "store CPU / job, us",
}


def variants(contender: Contender, peer: str) -> Iterator[Contender]:
    """The contender with workers of several sizes, whose jobs call the peer at this address."""
    if isinstance(contender, Holdfast):
        for processes, slots in PROCESSES_AND_SLOTS:
            worker = celery_worker("workers.app", processes)
            stripe = {"STRIPE_API_KEY": "sk_test_of_the_benchmark", "STRIPE_API_BASE": peer}
            each = f"{slots} slots" if slots > 1 else f"{processes} processes"
            yield _variant(contender, each, processes * slots, worker=worker, WORKER_SLOTS=str(slots), **stripe)
    for at_once in CONCURRENCY.get(type(contender), ()):
        yield _variant(contender, f"concurrency {at_once}", at_once, worker=contender.worker, BENCH_PEER=peer)


def _variant(contender: Contender, size: str, at_once: int, *, worker: Sequence[str | Path], **extra: str) -> Contender:
    variant = copy(contender)
    variant.name, variant.worker, variant.measurements = f"{contender.name}, {size}", worker, ("waiting",)
    variant.environment = {**contender.environment, "BENCH_AT_ONCE": str(at_once), **extra}
    return variant


def waiting(contender: Waiting, calls: int, peer: str) -> Figures:
    """A worker that empties a full queue of jobs, each of which makes one call."""
    contender.wipe()
    jobs, before = int(contender.environment["BENCH_AT_ONCE"]) * calls, _calls(peer)
    send(contender.port, CONNECTIONS, repeat(time.monotonic(), jobs), signed_requests(subscription_bodies()))
    check_recorded(contender, jobs)
    with contender.start(contender.worker, "waiting") as worker:
        figures = measure(contender, worker, jobs)
        wait_until(lambda: contender.succeeded() >= jobs, seconds=60, what=f"the last jobs; see {worker.log}")
    if (made := _calls(peer) - before) < jobs:
        raise Miscounted(f"{jobs} jobs, {made} calls")
    return figures


def measure(contender: Waiting, worker: Part, jobs: int) -> Figures:
    """From the time when WARM of the jobs are done until MEASURED are."""
    done = contender.succeeded
    see = f"see {worker.log}"
    wait_until(lambda: done() >= jobs * WARM, seconds=MAX_SECONDS, what=f"the worker's first jobs; {see}")
    cpu = CpuMeter(worker=worker.cpu_seconds, store=contender.store_seconds)
    first, began, memory = done(), time.monotonic(), list[int]()
    while (last := done()) < jobs * MEASURED:
        memory.append(worker.memory_bytes())
        if time.monotonic() > began + MAX_SECONDS:
            raise TimeoutError(f"{last} of {jobs} jobs are done; {see}")
        time.sleep(0.1)
    per_second = (last - first) / (time.monotonic() - began)
    return {**cpu.per_event(last - first), **per_memory(per_second, max(memory))}


def per_memory(per_second: float, memory_bytes: int) -> Figures:
    """Jobs per second, the memory in MB, and the jobs per second and GB."""
    return {
        "per_second": per_second,
        "memory_mb": memory_bytes / 1024**2,
        "per_gb": per_second / memory_bytes * GB,
    }


def _calls(peer: str) -> int:
    return int(requests.get(peer + CALLS, timeout=10).json())


def _start_peer(folder: Path, stack: ExitStack) -> str:
    port = free_port()
    part = Part([sys.executable, "-m", "bench.slow_peer", str(port)], {}, folder / "slow-peer.log", ROOT)
    stack.enter_context(part).wait_for(port)
    return f"http://127.0.0.1:{port}"


def write(found: Mapping[str, Sequence[Figures]], left_out: Mapping[str, str], about: str, folder: Path) -> None:
    """Write waiting.md and its chart to `folder`; the arguments are as in report.write."""
    rates = {name: [median(one["per_gb"] for one in rounds)] for name, rounds in found.items()}
    chart = plot.bars("Jobs that wait: jobs/s per GB of the worker's memory", rates, ["jobs/s per GB"], "jobs/s")
    (folder / "waiting.svg").write_text(chart)
    write_page(
        folder / "waiting.md",
        "waiting.md",
        about=about,
        latency=f"{LATENCY_SECONDS * 1000:.0f}",
        warm=f"{WARM:.0%}",
        measured=f"{MEASURED:.0%}",
        figures=report.table(COLUMNS, found),
        left_out=report.left_out_lines(left_out),
    )


def main() -> int:
    arguments = parse_arguments("bench.waiting", quick=False)
    about = report.about(arguments.quick)
    count, calls = QUICK if arguments.quick else FULL
    with ExitStack() as stack:
        bench = Bench(stack, (Holdfast, BullMQ, Dbos))
        peer = _start_peer(bench.folder, stack)
        bench.contenders = [variant for one in bench.contenders for variant in variants(one, peer)]
        bench.run("waiting", lambda contender, amount: waiting(contender, amount, peer), count, calls)
    write(bench.rounds.get("waiting", {}), bench.left_out, about, arguments.report)
    return 1 if any(name.startswith(Holdfast.name) for name in bench.left_out) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all processes it had started are stopped")
