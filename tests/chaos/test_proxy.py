"""Behind the deployment's Caddyfile, a receiver can be reloaded or replaced while every delivery gets 200."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from dev.stack.servers import wait_until
from inbox import queries
from inbox.store import Store
from tests.chaos.test_patience import Senders
from tests.support.caddy import Caddy, installed
from tests.support.stack import Stack

pytestmark = pytest.mark.skipif(not installed(), reason="Caddy is not installed, or too old")


def test_no_delivery_fails_while_a_receiver_behind_the_proxy_is_replaced(
    stack: Stack, real_store: Store, tmp_path: Path
) -> None:
    """As Docker Compose replaces a container: the new one starts only after the old one has ended."""
    receiver = stack.receiver()
    with Caddy(tmp_path, stack.port) as proxy, Senders(f"{proxy.url}/stripe-webhook", pause_seconds=0.005) as senders:
        for _ in range(2):
            time.sleep(1)
            receiver.stop()
            receiver = stack.receiver()
        time.sleep(1)
    assert set(senders.heard) == {"200"}
    assert queries.stats(real_store)["accepted"] == len(set(senders.count_ack)) > 50


def test_no_delivery_fails_while_a_receiver_behind_the_proxy_reloads(
    stack: Stack, real_store: Store, tmp_path: Path
) -> None:
    receiver = stack.receiver()
    with Caddy(tmp_path, stack.port) as proxy, Senders(f"{proxy.url}/stripe-webhook", pause_seconds=0.005) as senders:
        for renewed in range(1, 5):
            time.sleep(0.5)
            receiver.process.send_signal(signal.SIGHUP)
            wait_until(
                lambda renewed=renewed: receiver.log.read_text().count("Finished server process") == renewed,  # type: ignore[misc]
                seconds=30,
                what="the old process to end",
            )
    assert set(senders.heard) == {"200"}
    assert queries.stats(real_store)["accepted"] == len(set(senders.count_ack)) > 50
