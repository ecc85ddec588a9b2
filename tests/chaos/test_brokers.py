"""The doorbell on a broker of its own: rung by whoever records a job, not only by the sweep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dev.rabbitmq import BROKERS
from dev.servers import Valkey, free_port, wait_until
from inbox import look
from inbox.store import Store, connect
from tests.conftest import fresh_database
from tests.senders import signed_by_stripe, stripe_event
from tests.stack import Stack

PAID = {
    "payment_status": "paid",
    "amount_total": 100,
    "currency": "eur",
    "customer_details": {"email": "a@example.com"},
}


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    environment = {
        "REDIS_URL": valkey.url,
        "DATABASE_URL": fresh_database(request, "sqlite"),
        "RING_AGAIN_SECONDS": "3600",  # nobody but the one who records a job rings for it
    }
    made = Stack(tmp_path, environment)
    yield made
    made.end()


def checkout(stack: Stack, name: str) -> float:
    """Send a checkout with a follow-up job; returns how long the acknowledgement took, in seconds."""
    body, headers = signed_by_stripe(stripe_event(name, "checkout.session.completed", **PAID | {"id": f"cs_{name}"}))
    began = time.monotonic()
    assert requests.post(stack.url("/stripe-webhook"), data=body, headers=headers, timeout=5).ok
    return time.monotonic() - began


def wait_for(store: Store, succeeded: int) -> None:
    wait_until(lambda: look.stats(store)["succeeded"] == succeeded, seconds=20, what=f"{succeeded} jobs")


@pytest.mark.parametrize("broker", ["another redis", *BROKERS[1:]])
def test_an_event_and_its_follow_up_are_rung_for_at_once(
    request: pytest.FixtureRequest, stack: Stack, valkey: Valkey, real_store: Store, broker: str
) -> None:
    if broker == "another redis":
        stack.environment["BROKER_URL"] = valkey.url.removesuffix("/0") + "/1"
    else:
        stack.environment["BROKER_URL"] = request.getfixturevalue("rabbitmq").url
    stack.receiver()
    stack.worker(queues="fulfilment,notifications", app="workers.app")
    for n in range(5):
        checkout(stack, f"evt_{n}")
    wait_for(real_store, 10)


def test_a_broker_that_is_away_delays_no_acknowledgement_and_loses_nothing(
    stack: Stack, valkey: Valkey, real_store: Store
) -> None:
    stack.environment |= {"BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}//", "RING_AGAIN_SECONDS": "1"}
    stack.receiver()
    assert max(checkout(stack, f"evt_{n}") for n in range(5)) < 1
    stack.environment["BROKER_URL"] = valkey.url  # it moves: what is owed is owed on any broker
    stack.worker(queues="fulfilment,notifications", app="workers.app")
    wait_for(real_store, 10)
    assert connect(valkey.url).zcard("{holdfast}:dead") == 0
