"""A bulk replay by real workers that are killed in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.stack.servers import Valkey, wait_until
from inbox import queries
from inbox.store import Store
from tests.conftest import fresh_database
from tests.support.peers import Mailbox
from tests.support.signed_deliveries import API_KEY, deliver, signed_by_stripe, stripe_event
from tests.support.stack import Stack

BEARER = {"Authorization": f"Bearer {API_KEY}"}
LETTERS = 150  # two pages


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, mailbox: Mailbox, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(
        tmp_path,
        {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": fresh_database(request, "sqlite"),
            "ADMIN_NOTIFY_URLS": f"{mailbox.url}&to=admin@example.com",
        },
    )
    yield made
    made.end()


def payout(n: int) -> dict[str, Any]:
    """An event that sends a mail to the administrator."""
    return stripe_event(f"evt_{n}", "payout.failed", id=f"po_{n}", amount=1, currency="eur")


def ask(stack: Stack, path: str, body: Any = None) -> dict[str, Any]:
    url, verb = stack.url(f"/api/v1/{path}"), "GET" if body is None else "POST"
    answer = requests.request(verb, url, json=body, headers=BEARER, timeout=10)
    assert answer.ok, answer.text
    return dict(answer.json())


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_replay_skips_and_repeats_nothing(
    stack: Stack, mailbox: Mailbox, real_store: Store
) -> None:
    mailbox.refusing = True
    stack.receiver()
    for n in range(LETTERS):
        deliver(stack.url("/stripe-webhook"), *signed_by_stripe(payout(n)))
    mails = stack.worker(queues="notifications", app="workers.app", MAX_ATTEMPTS="1")
    payments = stack.worker(app="workers.app")
    wait_until(lambda: queries.stats(real_store)["dead"] == LETTERS, seconds=120, what=f"{queries.stats(real_store)}")
    mails.stop()
    mailbox.refusing = False

    replay = ask(stack, "replays", {"type": "payout.*"})["id"]
    wait_until(lambda: queries.stats(real_store)["dead"] < LETTERS - 20, seconds=60, what="the replay to be at work")
    payments.kill()
    assert queries.stats(real_store)["dead"] > 0, "it was done before it could be killed"
    stack.worker(app="workers.app")
    wait_until(lambda: ask(stack, f"replays/{replay}")["state"] == "finished", seconds=120, what="the replay")
    told = ask(stack, f"replays/{replay}")
    assert told | {"replayed": LETTERS, "skipped": 0, "total": LETTERS, "scanned": LETTERS} == told
    letters: Any = real_store.client.keys("{holdfast}:job:*notify*")
    assert [real_store.client.hget(letter, "replays") for letter in letters] == [b"1"] * LETTERS

    stack.worker(queues="notifications", app="workers.app")
    wait_until(lambda: queries.stats(real_store)["unfinished"] == 0, seconds=120, what=f"{queries.stats(real_store)}")
    assert (len(mailbox.mails), queries.stats(real_store)["dead"]) == (LETTERS, 0)
