"""Fill a store with events that came in over the last weeks, by the real scripts: to measure and to look at pages.

    python -m dev.fill redis://127.0.0.1:6390/0 --events 1000000

Of 100 events 87 have succeeded (those of more than a week ago have lost their payload, as they do), 9 are of no use to
anybody, 2 are dead, 2 are owed. It takes about four minutes for a million; set appendfsync to no for that time.
"""

from __future__ import annotations

import argparse
import json
import time

from inbox.event import Arrival, Event
from inbox.job import Lease
from inbox.retry import Bury
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
    store.record_all(arrived)
    jobs = [job for arrival in arrived for job in arrival.jobs]
    begun = [store.lease(job.id, "filler/1", 60, "a-celery-task") for n, job in enumerate(jobs) if n % 50 != 7]
    for n, lease in enumerate(it for it in begun if isinstance(it, Lease)):
        if n % 50 == 3:
            store.fail(lease, REASONS[n // 50 % 3], Bury("permanent"))
        else:
            store.finish(lease)


def _arrival(n: int) -> Arrival:
    kind = "product.updated" if n % 11 == 5 else KINDS[n % 4]
    subject = {
        "id": f"obj_{n}",
        "customer": f"cus_{n % 50_000}",
        "amount_due": 1900,
        "customer_email": "ada@example.com",
    }
    body = json.dumps({"id": f"evt_{n:08}", "type": kind, "created": 1_700_000_000 + n, "data": {"object": subject}})
    event = Event("stripe", f"evt_{n:08}", kind, body.encode())
    return Arrival(event, jobs_for("stripe", event.id, kind, f"stripe:cus_{n % 50_000}"))


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
