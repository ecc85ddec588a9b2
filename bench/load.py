"""The load generator: new signed events over open connections, at a steady rate or as fast as they are answered.

Of the packaged generators wrk has no rate, hey does not correct for coordinated omission, and neither can send a
different signed body each time at a rate.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence

import uvloop

from bench.events import signed_requests

Figures = dict[str, float]


def at_once(seconds: float) -> Iterator[float]:
    """Due times for as many requests as the connections allow within `seconds`."""
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        yield now


def at_rate(rate: float, seconds: float) -> Iterator[float]:
    """Due times of `rate` requests per second."""
    begin = time.monotonic() + 0.1
    return (begin + number / rate for number in range(math.ceil(rate * seconds)))


def send(port: int, connections: int, due_times: Iterator[float], requests: Iterator[bytes] | None = None) -> Figures:
    """Send a new event at each due time (time.monotonic()), or else the next of `requests`, and wait for all responses.

    Returns the number of `acks`, `per_second`, the latency's `p50`, `p99` and `p999` in milliseconds, and `generator`,
    the cores that this used.

    Latency counts from the due time, not from when the request was sent, so that slow responses do not hide the wait
    of later requests (coordinated omission). Raises RuntimeError for any answer but 200.
    """
    cpu, began = time.process_time(), time.monotonic()
    latencies = sorted(uvloop.run(_send(port, connections, due_times, requests or signed_requests())))
    spent = time.monotonic() - began
    return {
        "acks": len(latencies),
        "per_second": len(latencies) / spent,
        "p50": percentile(latencies, 50),
        "p99": percentile(latencies, 99),
        "p999": percentile(latencies, 99.9),
        "generator": (time.process_time() - cpu) / spent,
    }


async def _send(port: int, connections: int, due_times: Iterator[float], requests: Iterator[bytes]) -> list[float]:
    """Milliseconds from each request's due time to its response. Each connection takes the next request when free."""
    latencies = list[float]()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for due in due_times:
            request = next(requests)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(request)
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
