"""The record as the receiver asks it, and what handlers work on: rows, a mailbox, a Stripe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stack.servers import Valkey
from inbox.client import connect
from inbox.store import Store
from tasks.db.engine import make_engine, make_sessions
from tests.support.business import Business
from tests.support.peers import Stripe, running_stripe


@pytest.fixture
def web_store(valkey: Valkey) -> Store:
    """The record as the receiver asks it: with its little patience."""
    return Store(connect(valkey.url))


@pytest.fixture
def business(database: str, tmp_path: Path) -> Iterator[Business]:
    engine = make_engine(database)
    yield Business(make_sessions(engine), tmp_path)
    engine.dispose()


@pytest.fixture(scope="session")
def stripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stripe]:
    # Its webhooks go where nobody listens: these tests call the handlers themselves.
    with running_stripe(tmp_path_factory.mktemp("stripe"), "http://127.0.0.1:9") as server:
        yield server
