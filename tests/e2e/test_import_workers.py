"""An import by real workers, which die in the middle of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from dev.simulators.http import Request
from dev.stack.servers import Valkey, wait_until
from tests.conftest import fresh_database
from tests.support.asked_stripe import ask, stack_with_stripe
from tests.support.peers import Answer
from tests.support.signed_deliveries import API_KEY
from tests.support.stack import Stack

BEARER = {"Authorization": f"Bearer {API_KEY}"}
COUNT = 120


class Account:
    """A Stripe account with COUNT subscriptions. While `holding`, whoever asks for a further page waits."""

    def __init__(self) -> None:
        self.holding, self.waiting = threading.Event(), threading.Event()

    def answer(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query)
        if parts.path == "/v1/subscriptions":
            return Answer(200, body=json.dumps(self._list(query)).encode())
        if parts.path.startswith("/v1/subscriptions/sub_"):
            return Answer(200, body=json.dumps(subscription(int(parts.path[-4:]))).encode())
        return Answer(200, body=b'{"object": "list", "data": [], "has_more": false}')

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        if "starting_after" in query and self.holding.is_set():
            self.waiting.set()
            time.sleep(30)
        first = int(query["starting_after"][0][-4:]) + 1 if "starting_after" in query else 0
        rows = [subscription(number) for number in range(first, min(first + 100, COUNT))]
        return {"object": "list", "url": "/v1/subscriptions", "data": rows, "has_more": first + 100 < COUNT}


def subscription(number: int) -> dict[str, Any]:
    price = {"id": "price_1", "object": "price", "product": "club", "type": "recurring"}
    item = {"id": f"si_{number}", "object": "subscription_item", "price": price, "quantity": 1}
    items = {"object": "list", "data": [item], "has_more": False}
    about = {"id": f"sub_{number:04}", "object": "subscription", "customer": f"cus_{number}", "status": "active"}
    return {**about, "items": items}


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, account: Account, tmp_path: Path) -> Iterator[Stack]:
    with stack_with_stripe(account.answer, valkey, fresh_database(request, "sqlite"), tmp_path) as made:
        yield made


def known(stack: Stack) -> list[str]:
    return [key for (key,) in stack.rows("SELECT id FROM subscriptions WHERE stripe_status = 'active'")]


@pytest.mark.slow
def test_a_worker_killed_between_two_pages_of_an_import_loses_and_doubles_nothing(
    stack: Stack, account: Account
) -> None:
    account.holding.set()
    stack.receiver()
    first = stack.worker(queues="payments", app="workers.app")
    requests.post(stack.url("/api/v1/imports/stripe"), json={}, headers=BEARER, timeout=30).raise_for_status()
    assert account.waiting.wait(120)
    first.kill()
    account.holding.clear()
    stack.worker(queues="payments", app="workers.app")
    wait_until(lambda: ask(stack, "/api/v1/imports/stripe")["state"] == "ok", seconds=120, what="the end of the import")
    wait_until(lambda: len(known(stack)) == COUNT, seconds=120, what="all subscriptions")
    found = ask(stack, "/api/v1/imports/stripe")
    assert (found["listed"], found["differing"], found["reason"]) == (COUNT, COUNT, None)
    assert found["imported_at"] is not None
    assert ask(stack, "/api/v1/stats")["dead"] == 0
