"""Workers on machines whose clocks differ: what is compared across workers has the store's time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dev.stack.servers import Valkey
from inbox.store import Store
from tasks.ingest import build_delivery, identify_stripe_event
from tests.support.peers import Answer, Peer, Stripe
from tests.support.signed_deliveries import stripe_event

ROOT = Path(__file__).parents[3]
SUBSCRIPTION = {"id": "sub_1", "object": "subscription", "customer": "cus_1"}


def work(store: Store, environment: dict[str, str], kind: str, *, ahead_seconds: float) -> None:
    """A worker whose clock is ahead handles an event that is delivered now."""
    event = stripe_event(f"evt_{kind}", f"customer.subscription.{kind}")
    event |= {"created": store.now_ms() // 1000, "data": {"object": {**SUBSCRIPTION, "status": "active"}}}
    body = json.dumps(event).encode()
    delivery, (job,), *_ = build_delivery("stripe", identify_stripe_event(body.decode()), body)
    store.record(delivery, [job])
    command = [sys.executable, "-m", "tests.support.skewed_worker", job.id, str(ahead_seconds)]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "succeeded" in done.stdout, done.stderr


@pytest.mark.parametrize("ahead_seconds", [3, 86_400])
def test_a_worker_whose_clock_is_ahead_loses_no_cancellation_that_another_one_handles_later(
    real_store: Store, valkey: Valkey, database: str, ahead_seconds: float
) -> None:
    status = "active"
    with Peer(lambda _: Answer(200, body=json.dumps({**SUBSCRIPTION, "status": status, "data": []}).encode())) as peer:
        environment = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": database,
            "STRIPE_API_KEY": Stripe.KEY,
            "STRIPE_API_BASE": peer.url,
        }
        work(real_store, environment, "updated", ahead_seconds=ahead_seconds)
        status = "canceled"
        work(real_store, environment, "deleted", ahead_seconds=0)
    with create_engine(database).connect() as db:
        assert db.execute(text("SELECT stripe_status, status FROM subscriptions")).one() == ("canceled", "canceled")
