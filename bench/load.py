"""Load generators: wrk for the maximum rate, and a sender of our own for a steady rate.

Of the packaged generators wrk has no rate, hey does not correct for coordinated omission, and neither can send a
different signed body each time at a rate.
"""

from __future__ import annotations

import asyncio
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

import uvloop

from bench.events import write_requests

MAX_PER_SECOND = 16_000  # requests prepared for one second of wrk
SCRIPT = Path(__file__).parent / "wrk.lua"
# Files there cause no disk writes, which the store waits for.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True, slots=True)
class Load:
    """Result of a load. `began`: time.monotonic(); `figures`: p50, p99 and p999 of the latency in milliseconds, and
    `generator`, the cores that the load generator used."""

    acks: int
    began: float
    seconds: float
    figures: dict[str, float]


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
    return Load(result["answers"], began, result["seconds"], {**result["latencies"], "generator": generator})


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
    latencies = sorted(uvloop.run(_send(port, requests, rate, connections)))
    spent = time.monotonic() - began
    figures = {name: percentile(latencies, percent) for name, percent in (("p50", 50), ("p99", 99), ("p999", 99.9))}
    return Load(count, began, spent, figures | {"generator": (time.process_time() - cpu) / spent})


async def _send(port: int, requests: Sequence[bytes], rate: float, connections: int) -> list[float]:
    """Milliseconds from each request's due time to its response. Each connection takes the next request when free."""
    numbers, latencies, begin = iter(range(len(requests))), list[float](), time.monotonic() + 0.1

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            due = begin + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(requests[number])
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            if head.split(b" ", 2)[1] != b"200":
                raise RuntimeError(f"the response was {head[:30]!r}: {body[:200]!r}")
            latencies.append((time.monotonic() - due) * 1000)
        writer.close()

    try:
        await asyncio.gather(*(connection() for _ in range(connections)))
    except (asyncio.IncompleteReadError, OSError) as error:
        raise RuntimeError("a connection broke") from error
    return latencies


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Smallest value that at least `percent` percent of the ordered values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
