"""A stack whose workers ask a Stripe that a test plays, and what its API says of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from dev.simulators.http import Request
from dev.stack.servers import Valkey
from tests.support.peers import Answer, Peer, Stripe
from tests.support.signed_deliveries import API_KEY
from tests.support.stack import Stack


@contextmanager
def stack_with_stripe(
    answer: Callable[[Request], Answer], valkey: Valkey, database: str, folder: Path
) -> Iterator[Stack]:
    """A stack with an API key, for a Stripe that gives these answers."""
    with Peer(answer) as peer:
        stripe = {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url}
        made = Stack(folder, {"REDIS_URL": valkey.url, "DATABASE_URL": database, **stripe})
        yield made
        made.end()


def ask(stack: Stack, path: str) -> dict[str, Any]:
    """The API's answer to a GET, as JSON."""
    bearer = {"Authorization": f"Bearer {API_KEY}"}
    return dict(requests.get(stack.url(path), headers=bearer, timeout=30).json())
