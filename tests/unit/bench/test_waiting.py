"""The benchmark of jobs that wait compares the same work, and measures only while the worker is busy."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests

from bench import events, waiting
from bench.contenders import BullMQ, Holdfast
from bench.load import Figures
from bench.processes import Part
from bench.slow_peer import CALLS, LATENCY_SECONDS
from dev.stack.servers import free_port, wait_until
from tasks.ingest import build_delivery, identify_stripe_event
from tasks.routes import SUBSCRIPTION_CHANGED

FIGURES = {"per_second": 600.0, "memory_mb": 200.0, "per_gb": 3072.0, "worker_us": 900.0, "store_us": 50.0}
HOLDS_50_MB = "import time; data = b'x' * 50_000_000; print('held'); time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-u', '-c', {HOLDS_50_MB!r}])"


def contender(kind: type[Any]) -> Any:
    """One that has not been started."""
    one = object.__new__(kind)
    one.environment = {}
    return one


def test_every_event_has_one_job_that_waits_and_no_two_share_a_customer() -> None:
    bodies = [body.decode() for body in islice(events.subscription_bodies(), 50)]
    jobs = [build_delivery("stripe", identify_stripe_event(body), body.encode()).jobs for body in bodies]
    assert [[job.task for job in found] for found in jobs] == [[SUBSCRIPTION_CHANGED]] * 50
    assert len({found[0].ordering_key for found in jobs}) == 50


def test_the_variants_of_holdfast_differ_in_processes_and_slots() -> None:
    found = list(waiting.variants(contender(Holdfast), "http://peer"))
    sizes = [(it.worker[it.worker.index("-c") + 1], it.environment["WORKER_SLOTS"]) for it in found]
    assert sizes == [("4", "1"), ("1", "32"), ("1", "64"), ("1", "128")]
    assert [it.environment["BENCH_AT_ONCE"] for it in found] == ["4", "32", "64", "128"]
    assert all(it.environment["STRIPE_API_BASE"] == "http://peer" for it in found)


def test_the_variants_of_a_peer_differ_in_their_concurrency() -> None:
    original = contender(BullMQ)
    found = list(waiting.variants(original, "http://peer"))
    assert [it.name for it in found] == [f"BullMQ, concurrency {number}" for number in (4, 16, 100)]
    assert all(it.environment["BENCH_PEER"] == "http://peer" for it in found)
    assert (original.name, original.environment) == ("BullMQ", {})


def test_jobs_before_and_after_the_busy_time_are_not_measured() -> None:
    counts: Iterator[int] = iter([0, 5, 12, 20, 50, 91])  # of 100 jobs; it looks twice when it begins
    worker = SimpleNamespace(cpu_seconds=iter([1.0, 1.71]).__next__, memory_bytes=lambda: 2**20, log="log")
    counted = SimpleNamespace(succeeded=counts.__next__, store_seconds=iter([0.0, 0.071]).__next__)
    figures = waiting.measure(cast(Any, counted), cast(Part, worker), 100)
    assert figures["worker_us"] == pytest.approx(10_000)
    assert figures["store_us"] == pytest.approx(1_000)


def test_the_rate_is_related_to_the_memory() -> None:
    expected = {"per_second": 600, "memory_mb": 256, "per_gb": 2400}
    assert waiting.per_memory(600, 256 * 1024**2) == expected


def test_the_memory_of_children_is_counted(tmp_path: Path) -> None:
    with Part([sys.executable, "-c", PARENT], {}, tmp_path / "log") as part:
        wait_until(lambda: "held" in part.log.read_text(), seconds=60, what="the child")
        assert part.memory_bytes() > 50_000_000


def test_the_slow_peer_answers_with_the_subscription_that_was_asked_for_and_counts_it(tmp_path: Path) -> None:
    port = free_port()
    with Part([sys.executable, "-m", "bench.slow_peer", str(port)], {}, tmp_path / "log") as part:
        part.wait_for(port)
        began = time.monotonic()
        answer = requests.get(f"http://127.0.0.1:{port}/v1/subscriptions/sub_7", timeout=60).json()
        assert time.monotonic() - began >= LATENCY_SECONDS
        assert (answer["id"], answer["customer"]) == ("sub_7", "cus_7")
        assert json.loads(requests.get(f"http://127.0.0.1:{port}{CALLS}", timeout=60).text) == 1


def test_the_page_shows_every_worker_and_who_is_left_out(tmp_path: Path) -> None:
    found: dict[str, list[Figures]] = {"Holdfast, 32 slots": [FIGURES]}
    waiting.write(found, {"BullMQ": "Node is not installed"}, "a test", tmp_path)
    page = (tmp_path / "waiting.md").read_text()
    assert "| Holdfast, 32 slots | 600 (600–600) | 200 (200–200) | 3,072 (3,072–3,072) |" in page
    assert "BullMQ is not compared: Node is not installed" in page
