"""Load: wrk for as many requests as go through, bench/paced.py for a steady rate."""

from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.events import write_requests
from bench.paced import send

MOST_PER_SECOND = 16_000  # requests made ready for a second of wrk
SCRIPT = Path(__file__).parent / "wrk.lua"


@dataclass(frozen=True, slots=True)
class Load:
    """What a load generator saw. Latencies in milliseconds; `busy`: the share of one core it used itself."""

    acks: int
    began: float  # time.monotonic()
    seconds: float
    p50: float
    p99: float
    p999: float
    busy: float


def wrk(port: int, seconds: float, connections: int) -> Load:
    """As fast as `connections` allow. Raises SystemExit without wrk, RuntimeError for anything but 200s."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("wrk is not installed: apt install wrk (or brew install wrk), and try again")
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        file, count = Path(folder) / "requests", math.ceil(seconds * MOST_PER_SECOND)
        length = write_requests(file, count)
        threads = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s", "--latency"]
        before, began = _children_seconds(), time.monotonic()
        address = f"http://127.0.0.1:{port}"
        said = subprocess.run(
            [*threads, "-s", SCRIPT, address, "--", file, str(length)], capture_output=True, text=True, check=True
        ).stdout
    told = json.loads(said.split("RESULT ")[1])
    if told["refused"] or told["broken"]:
        raise RuntimeError(f"{told['refused']} answers were not 200, {told['broken']} connections broke")
    if told["answers"] + connections >= count:
        raise RuntimeError(f"{count} events were too few: raise MOST_PER_SECOND")
    busy = (_children_seconds() - before) / told["seconds"]
    return Load(told["answers"], began, told["seconds"], told["p50"], told["p99"], told["p999"], busy)


def paced(port: int, rate: float, seconds: float, connections: int) -> Load:
    """`rate` requests a second, whatever the answers do: each counts from when it was due, not from when it was sent.

    Raises RuntimeError for anything but 200s.
    """
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        file, count = Path(folder) / "requests", math.ceil(rate * seconds)
        length = write_requests(file, count)
        raw = file.read_bytes()
    requests = [raw[at : at + length] for at in range(0, len(raw), length)]
    cpu, began = time.process_time(), time.monotonic()
    waits = sorted(send(port, requests, rate, connections))
    spent = time.monotonic() - began
    p50, p99, p999 = (percentile(waits, percent) for percent in (50, 99, 99.9))
    return Load(count, began, spent, p50, p99, p999, busy=(time.process_time() - cpu) / spent)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that `percent` of an ordered list do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _memory() -> str | None:
    """Where files cost no disk, for the disk is what the store waits for."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
