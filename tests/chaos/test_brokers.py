"""With a separate broker, the process that records a job rings its doorbell, not only the sweep."""

from __future__ import annotations

import os
import time

import pytest
from celery import Celery

from dev.stack.rabbitmq import BROKERS
from dev.stack.servers import Valkey, free_port, wait_until
from inbox import queries
from inbox.client import connect
from inbox.store import Store
from tasks import broker
from tests.chaos.conftest import EACH_ONCE, World, deliver
from tests.support.stack import Stack

PAID = {
    "payment_status": "paid",
    "amount_total": 100,
    "currency": "eur",
    "customer_details": {"email": "a@example.com"},
}


def checkout(stack: Stack, name: str) -> float:
    """Send a checkout with a follow-up job; returns how long the acknowledgement took, in seconds."""
    began = time.monotonic()
    assert deliver(stack, name, **PAID) == 200
    return time.monotonic() - began


def wait_for(store: Store, succeeded: int) -> None:
    wait_until(lambda: queries.stats(store)["succeeded"] == succeeded, seconds=20, what=f"{succeeded} jobs")


@pytest.mark.parametrize("kind", ["another redis", *BROKERS[1:]])
def test_the_doorbells_of_an_event_and_its_follow_up_are_rung_at_once(
    request: pytest.FixtureRequest, stack: Stack, valkey: Valkey, real_store: Store, kind: str
) -> None:
    if kind == "another redis":
        stack.environment["BROKER_URL"] = valkey.url.removesuffix("/0") + "/1"
    else:
        stack.environment["BROKER_URL"] = request.getfixturevalue("rabbitmq").url
    stack.environment["RING_AGAIN_SECONDS"] = "3600"  # so that only the process that records a job rings
    stack.receiver()
    stack.worker(queues="fulfilment,notifications", app="workers.app")
    for n in range(5):
        checkout(stack, f"evt_{n}")
    wait_for(real_store, 10)


@pytest.mark.parametrize("kind", BROKERS)
def test_the_capacity_of_queues_is_known_if_others_do_not_exist(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    app = Celery("holdfast", broker=request.getfixturevalue("valkey" if kind == "redis" else kind).url)
    monkeypatch.setattr(broker, "app", app)
    there = [f"there-{n}-{os.urandom(4).hex()}" for n in range(3)]
    for length, name in enumerate(there, 1):
        for _ in range(length):
            app.send_task("any", queue=name, ignore_result=True)
    names = ["none-1", there[0], "none-2", "none-3", there[1], there[2], "none-4"]
    for _ in range(2):
        assert list(broker.doorbell_capacity(names).items()) == list(
            zip(names, [100, 99, 100, 100, 98, 97, 100], strict=True)
        )


def test_a_broker_that_is_down_delays_no_acknowledgement_and_loses_nothing(
    stack: Stack, valkey: Valkey, real_store: Store
) -> None:
    stack.environment |= {"BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}//", "RING_AGAIN_SECONDS": "1"}
    stack.receiver()
    assert max(checkout(stack, f"evt_{n}") for n in range(5)) < 1
    stack.environment["BROKER_URL"] = valkey.url  # a different broker: unfinished jobs do not depend on it
    stack.worker(queues="fulfilment,notifications", app="workers.app")
    wait_for(real_store, 10)
    assert connect(valkey.url).zcard("{holdfast}:dead") == 0


@pytest.mark.parametrize("world", [pair for pair in EACH_ONCE if pair.startswith("rabbitmq")], indirect=True)
def test_a_worker_whose_queue_is_deleted_while_it_subscribes_consumes_again(world: World) -> None:
    """Celery drops RabbitMQ's cancellation in that moment, and without a new subscription the jobs would never run."""
    world.stack.worker(HOLDFAST_TEST_QUEUE_GONE="1")
    job = world.record("plain")
    wait_until((world.stack.folder / "queue-gone").exists, seconds=30, what="the queue to be deleted")
    world.settle()
    assert world.state(job) == "succeeded"
