"""What every process of a real stack logs, and what it must not log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.stack.servers import wait_until
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET, signed_by_stripe, stripe_event
from tests.support.stack import Process, Stack

PERSONAL = {"email": "ada@example.com", "name": "Ada Tell-Tale", "card": "4242424242424242"}
KINDS = ("plain", "failing", "hopeless", "leaking")


def lines(part: Process) -> list[dict[str, Any]]:
    """All must be JSON, except Celery's last line, which it prints to stdout from a signal handler."""
    said = part.log.read_text().splitlines()
    return [json.loads(line) for line in said if line and not line.startswith("worker: ")]


def attempts(log: Path) -> list[dict[str, Any]]:
    """Only the lines of attempts; the process may still be writing its last line."""
    found = [json.loads(line) for line in log.read_text().splitlines() if '"attempt ' in line and line.endswith("}")]
    return [line for line in found if line["event"] in ("attempt ended", "attempt failed")]


def send(stack: Stack, kind: str) -> None:
    body, headers = signed_by_stripe(stripe_event(f"evt_{kind}", f"test.{kind}", **PERSONAL))
    assert requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=10).status_code == 200


@pytest.fixture
def written(stack: Stack) -> Stack:
    """The logs of a stack in which jobs succeeded and failed and deliveries were rejected."""
    worker = stack.worker(RETRY_BASE_SECONDS="1")
    stack.receiver("tests.support.receiver_app")
    for kind in KINDS:
        send(stack, kind)
    refused = {"Stripe-Signature": "t=1,v1=00"}
    requests.post(stack.url("/stripe-webhook"), data=json.dumps(PERSONAL), headers=refused, timeout=10)
    done = {"stripe:evt_plain:follow", "stripe:evt_failing:tests.support.handlers.failing"}
    wait_until(
        lambda: (
            {a["job"] for a in attempts(worker.log) if a.get("outcome") == "succeeded"} >= done
            and any("leaking" in a["job"] for a in attempts(worker.log))
        ),
        seconds=60,
        what="the attempts to be written down",
    )
    for part in stack.parts:
        part.stop()
    return stack


def test_every_log_line_is_json_without_secrets_or_personal_data(written: Stack) -> None:
    for part in written.parts:
        assert lines(part)
        text = part.log.read_text()
        assert [tale for tale in (*PERSONAL.values(), STRIPE_SECRET, API_KEY) if tale in text] == []


def test_each_ended_attempt_is_one_log_line_with_event_and_outcome(written: Stack) -> None:
    said = attempts(written.parts[0].log)
    (plain,) = [line for line in said if line["job"].startswith("stripe:evt_plain:") and line["follow_ups"]]
    assert (plain["source"], plain["event_id"], plain["attempt"]) == ("stripe", "evt_plain", 1)
    assert (plain["outcome"], plain["follow_ups"]) == ("succeeded", 1)
    assert plain["ms"] >= 0
    failing = [
        (line["attempt"], line.get("decision"), line.get("outcome")) for line in said if "failing" in line["job"]
    ]
    assert failing == [(1, "RetryAt", None), (2, "RetryAt", None), (3, None, "succeeded")]
    (hopeless,) = [line for line in said if "hopeless" in line["job"]]
    assert (hopeless["decision"], hopeless["error"]) == ("DeadLetter", "PermanentError")
    assert {line["error"] for line in said if "leaking" in line["job"]} == {"ValueError"}
