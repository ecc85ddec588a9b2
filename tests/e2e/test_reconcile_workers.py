"""Losses are found by real workers, which die and are limited in the middle of it; by the hour and by command."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from dev.simulators.http import Request
from dev.simulators.stripe_event_log import EventLog
from dev.stack.servers import Valkey, wait_until
from tests.conftest import fresh_database
from tests.support.asked_stripe import ask, stack_with_stripe
from tests.support.peers import Answer
from tests.support.signed_deliveries import API_KEY, stripe_event
from tests.support.stack import ROOT, Stack

BEARER = {"Authorization": f"Bearer {API_KEY}"}


def lost(number: int, ago: float = 900) -> dict[str, Any]:
    """A failed payment that Stripe could not tell us of; no two have the same invoice or customer."""
    invoice = {"id": f"in_{number}", "customer": f"cus_{number}", "customer_email": "ada@example.com"}
    money = {"amount_due": 1999, "currency": "eur", "attempt_count": 1}
    return stripe_event(f"evt_{number}", "invoice.payment_failed", **invoice, **money) | {
        "created": int(time.time() - ago)
    }


class Account:
    """A Stripe account whose endpoint was away. `reply` may answer in place of the list; None: the list."""

    def __init__(self) -> None:
        self.log = EventLog()
        self.holding = threading.Event()  # set: whoever asks for a further page waits
        self.waiting = threading.Event()
        self.limited = 0

    def lose(self, count: int) -> None:
        for number in range(count):
            event = lost(number)
            self.log.events.append(event)
            self.log.undelivered.add(event["id"])

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        if parts.path != "/v1/events":
            return Answer(404, body=b'{"error": {"type": "invalid_request_error", "code": "resource_missing"}}')
        query = parse_qs(parts.query)
        if "starting_after" in query and self.holding.is_set():
            self.waiting.set()
            time.sleep(30)
        if "starting_after" in query and self.limited:
            self.limited -= 1
            return Answer(429, {"Retry-After": "1"}, b'{"error": {"type": "rate_limit_error"}}')
        return Answer(200, body=json.dumps(self.log.page(query)).encode())


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, account: Account, tmp_path: Path) -> Iterator[Stack]:
    with stack_with_stripe(account.answer, valkey, fresh_database(request, "sqlite"), tmp_path) as made:
        yield made


def failures(stack: Stack) -> list[str]:
    return [key for (key,) in stack.rows("SELECT event_id FROM payment_failures")]


def test_a_worker_that_starts_finds_what_was_lost_and_says_so(stack: Stack, account: Account) -> None:
    account.lose(3)
    stack.receiver()
    assert ask(stack, "/api/v1/reconcile") == {
        "state": "never_run",
        "reason": None,
        "tried_at": None,
        "finished_at": None,
        "seen_until": None,
        "missed": 0,
    }
    stack.worker(queues="payments,notifications", app="workers.app")
    wait_until(lambda: len(failures(stack)) == 3, seconds=90, what="the effects of all three")
    found = ask(stack, "/api/v1/reconcile")
    assert (found["state"], found["reason"], found["missed"]) == ("ok", None, 3)
    assert time.time() - 300 < found["seen_until"] < time.time() - 59
    metrics = requests.get(stack.url("/metrics"), timeout=30).text
    assert "holdfast_missed_total 3.0" in metrics
    assert "holdfast_reconcile_failing 0.0" in metrics


@pytest.mark.slow
def test_a_worker_killed_between_two_pages_and_a_limited_api_lose_and_double_nothing(
    stack: Stack, account: Account
) -> None:
    account.lose(130)
    account.holding.set()
    stack.receiver()
    first = stack.worker(queues="payments,notifications", app="workers.app")
    wait_until(account.waiting.is_set, seconds=90, what="the first worker to ask for the second page")
    first.kill()
    account.holding.clear()
    account.limited = 2
    stack.worker(queues="payments,notifications", app="workers.app")
    wait_until(lambda: len(failures(stack)) >= 130, seconds=110, what="the effects of all")
    wait_until(lambda: ask(stack, "/api/v1/reconcile")["state"] == "ok", seconds=60, what="the end of the look")
    assert sorted(failures(stack)) == sorted(f"evt_{number}" for number in range(130))
    assert ask(stack, "/api/v1/stats")["missed"] == 130
    assert ask(stack, "/api/v1/stats")["dead"] == 0


def test_by_command_it_looks_now_and_tells_what_it_found(stack: Stack, account: Account) -> None:
    stack.receiver()
    stack.worker(queues="payments,notifications", app="workers.app")
    wait_until(lambda: ask(stack, "/api/v1/reconcile")["state"] == "ok", seconds=60, what="the look at the start")
    account.lose(2)
    told = command(stack)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[-1] == "events that never arrived and were recorded now: 2"


def test_without_a_key_the_command_the_api_and_the_worker_say_that_it_is_off(stack: Stack) -> None:
    stack.environment["STRIPE_API_KEY"] = ""
    told = command(stack)
    assert (told.returncode, told.stderr) == (1, "holdfast: reconcile is off: STRIPE_API_KEY is not set\n")
    stack.receiver()
    found = ask(stack, "/api/v1/reconcile")
    assert (found["state"], found["reason"]) == ("off", "STRIPE_API_KEY is not set")
    worker = stack.worker(queues="payments", app="workers.app")
    wait_until(
        lambda: worker.has_logged("reconcile is off: STRIPE_API_KEY is not set"), seconds=20, what="the worker's word"
    )


def command(stack: Stack) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.reconcile"],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
