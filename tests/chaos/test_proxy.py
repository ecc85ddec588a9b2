"""Behind the deployment's Caddyfile, a receiver can be reloaded or replaced while every delivery gets 200."""

from __future__ import annotations

import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import requests

from dev.stack.servers import wait_until
from inbox import queries
from inbox.store import Store
from tests.chaos.test_patience import Senders
from tests.support import bad_clients
from tests.support.caddy import Caddy
from tests.support.signed_deliveries import signed_by_stripe, stripe_event
from tests.support.stack import Stack

MB = 1024 * 1024


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
    assert set(senders.outcomes) == {"200"}
    assert queries.stats(real_store)["accepted"] == len(set(senders.count_ack)) > 50


def test_unfinished_bodies_take_little_memory_of_the_proxy(stack: Stack, tmp_path: Path) -> None:
    """It has no limit for all of them together, so what each may hold must be small."""
    stack.receiver()
    body, headers = signed_by_stripe(stripe_event("evt_1"))
    with Caddy(tmp_path, stack.port) as proxy, ExitStack() as open_sockets:
        before = proxy.memory_bytes()
        for _ in range(300):
            sock = open_sockets.enter_context(socket.create_connection(("localhost", proxy.port), timeout=10))
            sock.sendall(bad_clients.delivery(MB) + b"x" * (MB - 1))
        assert proxy.memory_bytes() - before < 128 * MB
        assert requests.post(f"{proxy.url}/stripe-webhook", data=body, headers=headers, timeout=30).status_code == 200


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
    assert set(senders.outcomes) == {"200"}
    assert queries.stats(real_store)["accepted"] == len(set(senders.count_ack)) > 50
