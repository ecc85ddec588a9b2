"""The benchmark counts only completed work, and all of its CPU time."""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from stripe import WebhookSignature

from bench import events, report, rounds
from bench.contenders import Contender
from bench.load import Figures, at_once, at_rate, percentile, send
from bench.processes import Part
from dev.simulators.http import Request, Response, Simulator, json_response
from dev.stack.servers import wait_until

LATENCIES = {"p50": 10.0, "p99": 20.0, "p999": 30.0, "generator": 0.1}
ACKS = {"web_us": 200.0, "store_us": 70.0, "per_second": 2000.0, **LATENCIES}
BURN = "import time\nwhile time.process_time() < 0.6: pass"
PARENT = (
    f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {BURN!r}]); print('over'); time.sleep(60)"
)


class Counted:
    """A contender that has recorded this many events."""

    def __init__(self, recorded: int) -> None:
        self.recorded = lambda: recorded


@pytest.mark.parametrize("recorded", [99, 101])
def test_a_round_whose_acknowledgements_are_not_the_recorded_events_is_invalid(recorded: int) -> None:
    rounds.check_recorded(cast(Contender, Counted(100)), 100)
    with pytest.raises(rounds.Miscounted, match=f"100 acknowledged, {recorded} recorded"):
        rounds.check_recorded(cast(Contender, Counted(recorded)), 100)


def test_the_cpu_of_children_that_have_ended_is_counted(tmp_path: Path) -> None:
    with Part([sys.executable, "-u", "-c", PARENT], {}, tmp_path / "log") as part:
        wait_until(lambda: "over" in part.log.read_text(), seconds=30, what="the child to end")
        assert part.cpu_seconds() >= 0.5  # the kernel counts whole ticks of each kind of time
    assert part.process.poll() is not None


def test_every_request_is_a_new_signed_event_of_the_same_length() -> None:
    heads, bodies = zip(*(it.split(b"\r\n\r\n", 1) for it in islice(events.signed_requests(), 50)), strict=True)
    headers = [dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:]) for head in heads]
    for header, body in zip(headers, bodies, strict=True):
        assert WebhookSignature.verify_header(body.decode(), header["Stripe-Signature"], events.SECRET, 300)
        assert len(body) == events.BYTES == int(header["Content-Length"])
    parsed: list[dict[str, Any]] = [json.loads(body) for body in bodies]
    assert len({event["id"] for event in parsed}) == 50
    assert len({event["data"]["object"]["customer"] for event in parsed}) == 50, (
        "or their ordering keys would serialize them"
    )


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (99.9, 100), (100, 100)])
def test_a_percentile_is_the_smallest_value_that_this_share_does_not_exceed(percent: float, value: int) -> None:
    assert percentile(range(1, 101), percent) == value


def write_report(folder: Path, acks: dict[str, list[Figures]], **left_out: str) -> str:
    report.write({"acks": acks}, left_out, "a test", folder)
    return (folder / "benchmarks.md").read_text()


def test_a_missed_goal_is_marked(tmp_path: Path) -> None:
    acks = {"Holdfast": [ACKS | {"web_us": 162.0}, ACKS, ACKS | {"web_us": 162.0}], "BullMQ": [ACKS]}
    page = write_report(tmp_path, acks)
    assert "| 0.81 | at most 0.8 | **missed** |" in page
    page = write_report(tmp_path, acks | {"Holdfast": [ACKS | {"web_us": 160.0}]})
    assert "| 0.80 | at most 0.8 | met |" in page


def test_the_page_names_contenders_that_are_left_out(tmp_path: Path) -> None:
    page = write_report(tmp_path, {"Holdfast": [ACKS]}, BullMQ="Node is not installed")
    assert "BullMQ is not compared: Node is not installed" in page
    assert "relative to BullMQ" not in page.partition("## The goals")[2], "a goal without figures is left out"


class Slow(Simulator):
    protocol_version = "HTTP/1.1"


def reply_slowly(_: Request) -> Response:
    time.sleep(0.02)
    return json_response({})


def test_a_steady_load_waits_for_every_response_and_counts_from_the_due_time() -> None:
    with Slow(reply_slowly) as server:
        load = send(server.server_port, 1, at_rate(100, 0.5))  # the one connection can only do 50 per second
    assert load["acks"] == 50
    assert load["p50"] > 200, "the wait before a request is sent counts"
    assert load["p99"] > 400


def test_a_load_at_the_maximum_rate_counts_from_the_moment_a_connection_is_free() -> None:
    with Slow(reply_slowly) as server:
        load = send(server.server_port, 2, at_once(0.5))
    assert 5 <= load["acks"] <= 50
    assert load["p50"] < 200
