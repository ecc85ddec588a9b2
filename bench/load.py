"""Load generators: wrk for the maximum rate, bench/paced.py for a steady rate."""

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

MAX_PER_SECOND = 16_000  # requests prepared for one second of wrk
SCRIPT = Path(__file__).parent / "wrk.lua"
MEMORY = (
    "/dev/shm" if Path("/dev/shm").is_dir() else None
)  # files there cause no disk writes, which the store waits for


@dataclass(frozen=True, slots=True)
class Load:
    """Result of a load. Latencies in milliseconds; `began`: time.monotonic(); `generator`: cores it used itself."""

    acks: int
    began: float
    seconds: float
    p50: float
    p99: float
    p999: float
    generator: float


def wrk(port: int, seconds: float, connections: int) -> Load:
    """As fast as `connections` allow. Raises SystemExit without wrk, RuntimeError for any answer but 200."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt install wrk (or brew install wrk), and try again")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        file, count = Path(folder) / "requests", math.ceil(seconds * MAX_PER_SECOND)
        length = write_requests(file, count)
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s", "--latency"]
        command: list[str | Path] = ["wrk", *options, "-s", SCRIPT, f"http://127.0.0.1:{port}", "--", file, str(length)]
        before, began = _children_seconds(), time.monotonic()
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(output.split("RESULT ")[1])
    if result["refused"] or result["broken"]:
        raise RuntimeError(f"{result['refused']} responses were not 200, {result['broken']} connections broke")
    if result["answers"] + connections >= count:
        raise RuntimeError(f"{count} events were too few: raise MAX_PER_SECOND")
    generator = (_children_seconds() - before) / result["seconds"]
    latencies = (result["p50"], result["p99"], result["p999"])
    return Load(result["answers"], began, result["seconds"], *latencies, generator)


def paced(port: int, rate: float, seconds: float, connections: int) -> Load:
    """`rate` requests per second. Latency counts from the time a request was due, not from when it was sent, so that
    slow responses do not hide the wait of later requests (coordinated omission).

    Raises RuntimeError for any answer but 200.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        file, count = Path(folder) / "requests", math.ceil(rate * seconds)
        length = write_requests(file, count)
        raw = file.read_bytes()
    requests = [raw[at : at + length] for at in range(0, len(raw), length)]
    cpu, began = time.process_time(), time.monotonic()
    latencies = sorted(send(port, requests, rate, connections))
    spent = time.monotonic() - began
    p50, p99, p999 = (percentile(latencies, percent) for percent in (50, 99, 99.9))
    return Load(count, began, spent, p50, p99, p999, (time.process_time() - cpu) / spent)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Smallest value that at least `percent` percent of the ordered values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
