"""A connection to Postgres that both sides keep open although nothing passes blocks no job and no page for long."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from dev.stack.postgres import Postgres
from dev.stack.tcp_proxy import TcpProxy
from tasks.db.engine import make_engine
from tests.support.databases import fresh_postgres

SOON_SECONDS = 20


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[TcpProxy]:
    fresh_postgres(postgres)
    with TcpProxy(postgres.socket) as made:
        yield made


def answered_soon(engine: Engine) -> bool:
    """Whether a statement gets its answer; in a thread, which may hang for ever."""
    answers: list[int] = []

    def ask() -> None:
        with engine.connect() as connection:
            answers.append(connection.execute(text("SELECT 1")).scalar_one())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SOON_SECONDS)
    return answers == [1]


def test_the_pool_replaces_connections_that_do_not_answer(proxy: TcpProxy) -> None:
    engine = make_engine(f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/test")
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            connection.execute(text("SELECT 1"))
    assert proxy.drop() == 2
    assert [answered_soon(engine) for _ in range(3)] == [True] * 3
