"""More than the workers can take, and parts renewed under load: all is acknowledged, and done in its turn."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter

import pytest
import requests

from dev.servers import wait_until
from inbox import look
from inbox.store import Store
from tests.chaos.conftest import deliver
from tests.stack import Stack


class Senders:
    """Some senders at once, each trying again as Stripe does; counts what they heard."""

    def __init__(self, stack: Stack, count: int = 3, pause_seconds: float = 0.02) -> None:
        self.heard: Counter[str] = Counter()
        self.acknowledged: list[str] = []
        self._stack, self._stopped, self._pause_seconds = stack, threading.Event(), pause_seconds
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(count)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send(self, sender: int) -> None:
        number = 0
        while not self._stopped.is_set():
            name = f"evt_{sender}_{number}"
            try:
                status = deliver(self._stack, name)
                self.heard[str(status)] += 1
                if status == 200:
                    self.acknowledged.append(name)
                    number += 1
            except requests.RequestException as error:
                self.heard[type(error).__name__] += 1
            time.sleep(self._pause_seconds)


def test_a_backlog_is_taken_whole_without_workers_and_done_in_the_order_it_came(
    stack: Stack, real_store: Store
) -> None:
    stack.receiver()
    names = [f"evt_{n}" for n in range(300)]
    assert {deliver(stack, name) for name in names} == {200}
    stack.worker(queues="fulfilment", app="workers.app")
    wait_until(lambda: look.stats(real_store)["owed"] == 0, seconds=60, what="the backlog to drain")
    started = []
    for name in names:
        event = look.event(real_store, "stripe", name)
        assert event is not None
        (attempt,) = event["jobs"][0]["attempts"]
        started.append(attempt["started"])
    assert started == sorted(started)


def test_a_receiver_renewed_under_load_refuses_no_sender(stack: Stack, real_store: Store) -> None:
    """SIGHUP: granian starts new processes on the same socket before it ends the old ones."""
    receiver = stack.receiver()
    with Senders(stack) as senders:
        for renewed in (1, 2):
            time.sleep(1)
            receiver.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda renewed=renewed: receiver.log.read_text().count("Stopped old worker") == renewed,  # type: ignore[misc]
                seconds=30,
                what="the old process to end",
            )
    assert set(senders.heard) <= {"200", "ConnectionError"}
    assert senders.heard["ConnectionError"] <= 2  # one that was accepted in the very moment; it came again
    assert look.stats(real_store)["accepted"] == len(set(senders.acknowledged))


@pytest.mark.timeout(300)  # two stops may each take all of their grace
def test_workers_replaced_under_load_lose_and_double_nothing(stack: Stack, real_store: Store) -> None:
    stack.receiver()
    old = stack.worker(queues="fulfilment", app="workers.app")
    with Senders(stack) as senders:
        for _ in range(2):
            time.sleep(1)
            new = stack.worker(queues="fulfilment", app="workers.app")
            assert old.stop() == 0
            old = new
    wait_until(lambda: look.stats(real_store)["owed"] == 0, seconds=120, what="every job to be done")
    stats = look.stats(real_store)
    assert set(senders.heard) == {"200"}
    assert stats | {"accepted": len(senders.acknowledged), "succeeded": len(senders.acknowledged), "dead": 0} == stats
    assert stats["expired"] == 0  # what was running was finished or given back, and no lease had to run out
