"""Fill a store with events that came in over the last weeks, by the real scripts: to measure and to look at pages.

    python -m dev.fill redis://127.0.0.1:6390/0 --events 1000000

Of 100 events 87 have succeeded (those of more than a week ago have lost their payload, as they do), 9 are of no use to
anybody, 2 are dead, 2 are owed. It takes about four minutes for a million; set appendfsync to no for that time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice

from inbox.event import Event
from inbox.job import NewJob
from inbox.store import Store, connect
from tasks.routes import jobs_for

BATCH = 1000
SPREAD_MS = 20 * 86_400_000
KINDS = ("invoice.paid", "invoice.payment_failed", "customer.subscription.updated", "checkout.session.completed")
REASONS = ("the invoice has no customer", "Stripe answered 500", "the mail server refused the address")


class Clock:
    """The time at which the events of a batch arrive."""

    ms = 0

    def __call__(self) -> int:
        return self.ms


def fill(store: Store, clock: Clock, events: int, until_ms: int) -> None:
    """Record `events` events in batches, evenly over the time before `until_ms`, and settle most of them."""
    for first in range(0, events, BATCH):
        clock.ms = until_ms - SPREAD_MS * (events - first) // events
        _batch(store, range(first, min(first + BATCH, events)))


def _batch(store: Store, numbers: range) -> None:
    arrived = [_arrival(n) for n in numbers]
    _run(store, "record", ((e.source, e.id, e.type, e.body, "", "accepted", *store._flat(j)) for e, j in arrived))
    jobs = [job for _, owed in arrived for job in owed]
    begun = [job for n, job in enumerate(jobs) if n % 50 != 7]
    leases = _run(store, "lease", ((job.id, "filler/1", 60_000, "a-celery-task") for job in begun))
    held = [(job, lease[1]) for job, lease in zip(begun, leases, strict=True) if lease[0] == b"leased"]
    _run(store, "finish", ((job.id, token) for n, (job, token) in enumerate(held) if n % 50 != 3))
    dead = [pair for n, pair in enumerate(held) if n % 50 == 3]
    _run(store, "fail", ((job.id, token, REASONS[n % 3], "") for n, (job, token) in enumerate(dead)))


def _arrival(n: int) -> tuple[Event, tuple[NewJob, ...]]:
    kind = "product.updated" if n % 11 == 5 else KINDS[n % 4]
    subject = {
        "id": f"obj_{n}",
        "customer": f"cus_{n % 50_000}",
        "amount_due": 1900,
        "customer_email": "ada@example.com",
    }
    body = json.dumps({"id": f"evt_{n:08}", "type": kind, "created": 1_700_000_000 + n, "data": {"object": subject}})
    event = Event("stripe", f"evt_{n:08}", kind, body.encode())
    return event, jobs_for("stripe", event.id, kind, f"stripe:cus_{n % 50_000}")


def _run(store: Store, script: str, calls: Iterator[tuple[object, ...]]) -> list[list[bytes]]:
    answers: list[list[bytes]] = []
    while some := list(islice(calls, BATCH)):
        with store.client.pipeline(transaction=False) as pipe:
            for call in some:
                store._scripts[script](keys=["{holdfast}:"], args=store._args(call), client=pipe)
            answers += pipe.execute()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.fill", description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--events", type=int, default=1_000_000)
    asked = parser.parse_args()
    clock, began = Clock(), time.monotonic()
    store = Store(connect(asked.url, timeout_seconds=60), now_ms=clock)
    fill(store, clock, asked.events, int(time.time() * 1000))
    used, _ = store.memory()
    print(f"{asked.events} events in {time.monotonic() - began:.0f} s; the store uses {used // 1_000_000} MB")


if __name__ == "__main__":
    main()
