"""The benchmark counts only completed work, and all of its CPU time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from stripe import WebhookSignature

from bench import events, report, rounds
from bench.contenders import Contender
from bench.load import Load, paced, percentile
from bench.processes import Part
from bench.results import Results, load, save
from dev.simulators.http import Request, Response, Simulator, json_response
from dev.stack.servers import wait_until

LATENCIES = {"p50": 10.0, "p99": 20.0, "p999": 30.0, "generator": 0.1}
ACKS = {"web_us": 200.0, "store_us": 70.0, "per_second": 2000.0, **LATENCIES}
BURN = "import time\nwhile time.process_time() < 0.6: pass"
PARENT = (
    f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {BURN!r}]); print('over'); time.sleep(60)"
)


class Counted:
    """A contender with `before` recorded events at the first call, and `after` at the second."""

    name = "contender"

    def __init__(self, before: int, after: int) -> None:
        self._answers: Iterator[int] = iter((before, after))

    def recorded(self) -> int:
        return next(self._answers)


@pytest.fixture(autouse=True)
def no_settle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "SETTLE_SECONDS", 0)


@pytest.mark.parametrize(("recorded", "right"), [(99, False), (100, True), (132, True), (133, False)])
def test_acknowledgements_count_only_if_each_is_a_new_record(recorded: int, right: bool) -> None:
    contender = cast(Contender, Counted(7, 7 + recorded))
    run = lambda: Load(100, 0, 1, {})  # noqa: E731
    if right:
        assert rounds._checked(contender, run, 32)[0].acks == 100
    else:
        with pytest.raises(rounds.Miscounted):
            rounds._checked(contender, run, 32)


def test_the_cpu_of_children_that_have_ended_is_counted(tmp_path: Path) -> None:
    part = Part([sys.executable, "-u", "-c", PARENT], {}, tmp_path / "log")
    try:
        wait_until(lambda: "over" in part.log.read_text(), seconds=30, what="the child to end")
        assert part.cpu_seconds() >= 0.5  # the kernel counts whole ticks of each kind of time
    finally:
        part.stop()
    assert not part.alive()


def test_every_request_is_a_new_signed_event_of_the_same_length(tmp_path: Path) -> None:
    length = events.write_requests(tmp_path / "requests", 50)
    raw = (tmp_path / "requests").read_bytes()
    heads, bodies = zip(
        *(raw[at : at + length].split(b"\r\n\r\n", 1) for at in range(0, len(raw), length)), strict=True
    )
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


def test_a_missed_goal_is_marked() -> None:
    acks = {"Holdfast": [ACKS | {"web_us": 162.0}, ACKS, ACKS | {"web_us": 162.0}], "BullMQ": [ACKS]}
    found = Results(quick=True, rounds={"acks": acks})
    assert "| 0.81 | at most 0.8 | **missed** |" in report.tables(found)
    acks["Holdfast"] = [ACKS | {"web_us": 160.0}]
    assert "| 0.80 | at most 0.8 | met |" in report.tables(found)


def test_the_page_names_contenders_that_are_left_out(tmp_path: Path) -> None:
    found = Results(quick=False, rounds={"acks": {"Holdfast": [ACKS]}}, left_out={"BullMQ": "Node is not installed"})
    save(found, tmp_path / "results.json")
    report.write(load(tmp_path / "results.json"), tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "BullMQ is not compared: Node is not installed" in page
    assert "relative to BullMQ" not in page.partition("## The goals")[2], "a goal without figures is left out"


def test_a_steady_load_waits_for_every_response_and_counts_from_the_due_time() -> None:
    class Slow(Simulator):
        protocol_version = "HTTP/1.1"

    def reply(_: Request) -> Response:
        time.sleep(0.02)
        return json_response({})

    with Slow(reply) as server:
        load = paced(server.server_port, 100, 0.5, 1)  # the one connection can only do 50 per second
    assert load.acks == 50
    assert load.figures["p50"] > 200, "the wait before a request is sent counts"
    assert load.figures["p99"] > 400
