"""More events than the workers can process, and parts restarted under load: all are recorded and processed in order."""

from __future__ import annotations

import json
import math
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from dev.harness.sender import Delivery, Sender
from dev.stack.servers import wait_until
from inbox import queries
from inbox.event import Event
from inbox.job import NewJob, job_id
from inbox.store import Store
from tests.chaos.conftest import deliver, deliver_to
from tests.support.signed_deliveries import STRIPE_SECRET, stripe_event
from tests.support.stack import Stack

CHECKOUT = "fulfilment.checkout_completed"


class Senders:
    """Several concurrent senders, each repeating as Stripe does; records the responses with their times.

    The checkouts are paid, each with a customer address made from the event id.
    """

    def __init__(self, url: str, count: int = 3, pause_seconds: float = 0.02) -> None:
        self.answers: list[tuple[float, str]] = []  # by time.monotonic()
        self.count_ack: list[str] = []
        self._url, self._stopped, self._pause_seconds = url, threading.Event(), pause_seconds
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(count)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(answer for _, answer in self.answers)

    def outcomes_outside(self, since: float, until: float) -> set[str]:
        """The responses outside this time span."""
        return {answer for at, answer in self.answers if not since <= at <= until}

    def outcomes_during(self, since: float, until: float) -> set[str]:
        return {answer for at, answer in self.answers if since <= at <= until}

    def _send(self, sender: int) -> None:
        number = 0
        while not self._stopped.is_set():
            name = f"evt_{sender}_{number}"
            answer = self._answer(name)
            self.answers.append((time.monotonic(), answer))
            if answer == "200":
                self.count_ack.append(name)
                number += 1
            time.sleep(self._pause_seconds)

    def _answer(self, name: str) -> str:
        try:
            return str(deliver_to(self._url, name, payment_status="paid", customer_email=f"{name}@example.test"))
        except requests.RequestException as error:
            return type(error).__name__


@pytest.mark.slow
def test_a_backlog_is_recorded_without_workers_and_processed_in_order(stack: Stack, real_store: Store) -> None:
    stack.receiver()
    names = [f"evt_{n}" for n in range(300)]
    assert {deliver(stack, name) for name in names} == {200}
    stack.worker(queues="fulfilment", app="workers.app")
    wait_until(lambda: queries.stats(real_store)["unfinished"] == 0, seconds=60, what="the backlog to drain")
    begun = [_received_and_begun(real_store, name)[1] for name in names]
    assert begun == sorted(begun)


USUAL_RATE = 1.0  # events a second
BURST = int(50 * USUAL_RATE * 60)
SENDERS = 16
RETRIES = BURST // 20
LATE_SECONDS = 2.0  # a worker may have received a doorbell while it runs other jobs for a slice of its time


@pytest.mark.slow
@pytest.mark.timeout(420)  # one minute on an idle machine
def test_fifty_times_the_usual_rate_is_recorded_without_workers_and_processed_in_order(
    stack: Stack, real_store: Store
) -> None:
    stack.receiver()
    for number in range(RETRIES):  # due while no worker runs
        name = f"evt_due_{number}"
        event = Event("stripe", name, "checkout.session.completed", json.dumps(checkout(name)).encode())
        job = NewJob(job_id("stripe", name, CHECKOUT), f"tasks.{CHECKOUT}", "fulfilment", delay_seconds=5)
        real_store.record(event, [job])
    real_store.client.config_set("maxmemory", str(200_000_000))
    sender = Sender(stack.url(""), STRIPE_SECRET)
    names = [f"evt_{n}" for n in range(BURST)]
    deliveries = [Delivery(name, "checkout", json.dumps(checkout(name)).encode()) for name in names]
    metrics = []
    with ThreadPoolExecutor(SENDERS) as pool:
        for part in range(0, BURST, BURST // 10):
            list(pool.map(sender.send, deliveries[part : part + BURST // 10]))
            metrics.append(figures(stack))
    real_store.client.config_set("maxmemory", "0")
    assert {(answer.status, answer.tries) for answer in sender.answers} == {(200, 1)}
    _memory_was_predicted(metrics)

    for _ in range(2):
        stack.worker(queues="fulfilment", app="workers.app")
    wait_until(lambda: queries.stats(real_store)["unfinished"] == 0, seconds=300, what="the backlog to drain")
    stats = queries.stats(real_store)
    assert (stats["succeeded"], stats["dead"]) == (BURST + RETRIES, 0)
    assert _most_overtaken(real_store, names) < LATE_SECONDS


def checkout(name: str) -> dict[str, Any]:
    return stripe_event(name, "checkout.session.completed", id=f"cs_{name}", payment_status="unpaid")


def figures(stack: Stack) -> dict[str, float]:
    """The metrics of the store's memory, and the time of the request."""
    page = requests.get(stack.url("/metrics"), timeout=10).text
    found = re.findall(r"^holdfast_(store_\w+) (\S+)$", page, re.MULTILINE)
    return {name: float(value) for name, value in found} | {"at": time.monotonic()}


def _memory_was_predicted(metrics: list[dict[str, float]]) -> None:
    """Halfway through, the predicted time until the store is full matches the rate that followed."""
    half, last = metrics[len(metrics) // 2], metrics[-1]
    grown = (last["store_bytes"] - half["store_bytes"]) / (last["at"] - half["at"])
    really = (0.9 * half["store_limit_bytes"] - half["store_bytes"]) / grown
    assert really / 2.5 < half["store_full_seconds"] < really * 2.5
    assert [one["store_bytes"] for one in metrics] == sorted(one["store_bytes"] for one in metrics)


def _most_overtaken(store: Store, names: list[str]) -> float:
    """The maximum number of seconds by which a job began after the job of an event received later."""
    times = sorted(_received_and_begun(store, name) for name in names)
    most, first_after = 0.0, math.inf
    for _, begun in reversed(times):
        most, first_after = max(most, begun - first_after), min(first_after, begun)
    return most / 1000


def _received_and_begun(store: Store, name: str) -> tuple[int, int]:
    event = queries.find_event(store, "stripe", name)
    assert event is not None
    (attempt,) = event["jobs"][0]["attempts"]
    return event["received"], attempt["started"]


def test_no_delivery_is_rejected_while_the_receiver_reloads_under_load(stack: Stack, real_store: Store) -> None:
    """SIGHUP: uvicorn starts new processes on the same socket before it ends the old ones."""
    receiver = stack.receiver()
    with Senders(stack.url("/stripe-webhook")) as senders:
        for renewed in (1, 2):
            time.sleep(1)
            receiver.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda renewed=renewed: receiver.log.read_text().count("Finished server process") == renewed,  # type: ignore[misc]
                seconds=30,
                what="the old process to end",
            )
    assert set(senders.outcomes) <= {"200", "ConnectionError"}
    assert (
        senders.outcomes["ConnectionError"] <= 2
    )  # a connection accepted in that moment; the sender repeated the event
    assert queries.stats(real_store)["accepted"] == len(set(senders.count_ack))


@pytest.mark.slow
@pytest.mark.timeout(300)  # two stops may each take the whole grace period
def test_no_job_is_lost_or_run_twice_while_workers_are_replaced_under_load(stack: Stack, real_store: Store) -> None:
    stack.receiver()
    old = stack.worker(queues="fulfilment,notifications", app="workers.app")
    # At most what one worker can process on a slow machine: this tests the replacement of workers, not a backlog.
    with Senders(stack.url("/stripe-webhook"), pause_seconds=0.2) as senders:
        for _ in range(2):
            time.sleep(1)
            new = stack.worker(queues="fulfilment,notifications", app="workers.app")
            assert old.stop() == 0
            old = new
    wait_until(lambda: queries.stats(real_store)["unfinished"] == 0, seconds=120, what="every job to be done")
    stats = queries.stats(real_store)
    assert set(senders.outcomes) == {"200"}
    orders = len(senders.count_ack)  # each is fulfilled and has a receipt
    assert stats | {"accepted": orders, "succeeded": 2 * orders, "dead": 0} == stats
    assert stats["expired"] == 0  # running jobs were finished or returned, so no lease expired
