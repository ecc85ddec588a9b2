"""Jobs that wait for a peer which never ends its answer: they end at their time limit, and their process goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from inbox import queries
from inbox.event import Event
from inbox.job import NewJob
from tests.chaos.conftest import SLOTS, World

JOBS = 5
SETTINGS: Any = {
    "STRIPE_API_KEY": "sk_test_of_the_tests",
    "JOB_TIME_LIMIT_SECONDS": "12",  # stripe is imported by the first job
    "LEASE_SECONDS": "60",
    "MAX_ATTEMPTS": "1",
}


def drip(connection: socket.socket) -> None:
    """Sends a byte of the body every 50 ms: no timeout of a single read ends it."""
    with connection, suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)


@contextmanager
def dripping_server() -> Iterator[str]:
    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def record(world: World, number: int) -> str:
    event, kind = f"evt_{number}", "customer.subscription.updated"
    items = {"object": "list", "data": [{"id": "si_1", "quantity": 1, "price": {"id": "price_1", "product": "prod_1"}}]}
    subscription = {"id": f"sub_{number}", "customer": f"cus_{number}", "status": "active", "items": items}
    body = {"id": event, "type": kind, "created": 1, "data": {"object": subscription}}
    job = NewJob(f"stripe:{event}:subscriptions.changed", "tasks.subscriptions.changed", "payments")
    world.store.record(Event("stripe", event, kind, json.dumps(body).encode()), [job])
    return job.id


@pytest.mark.slow
@pytest.mark.parametrize("world", SLOTS[:1], indirect=True)
def test_jobs_end_at_their_time_limit_and_their_process_goes_on(world: World) -> None:
    with dripping_server() as url:
        world.stack.worker(STRIPE_API_BASE=url, **SETTINGS)
        jobs = [record(world, number) for number in range(JOBS)]
        world.settle()
    attempts = [attempt for job in jobs for attempt in (queries.find_job(world.store, job) or {})["attempts"]]
    assert {attempt["reason"] for attempt in attempts} == {"the job reached its time limit in the call of Stripe"}
    assert (len(attempts), len({attempt["holder"] for attempt in attempts})) == (JOBS, 1)
