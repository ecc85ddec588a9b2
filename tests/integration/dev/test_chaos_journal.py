"""The chaos run's write log, on both databases: it shows every second write, even where a key allows one row only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, text

from dev.harness import write_log

ORDER = """INSERT INTO orders (session_id, state, amount_total, currency, bought, created_at)
VALUES ('cs_1', 'fulfilled', 1, 'eur', '[]', CURRENT_TIMESTAMP)"""
ACCESS = """INSERT INTO entitlements (source, product, holder, changes, past_due, reason, granted_at)
VALUES ('cs_1', 'book', 'cus_1', 1, false, '', CURRENT_TIMESTAMP)"""
DONE = "INSERT INTO effects (job_id, follow_ups, done_at) VALUES ('job', '[]', CURRENT_TIMESTAMP)"


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    write_log.create_triggers(database)
    engine = create_engine(database)
    try:
        with engine.begin() as connection:
            yield connection
        with engine.begin() as connection:
            _forget(connection)
    finally:
        engine.dispose()


def _forget(connection: Connection) -> None:
    """All tests share the Postgres."""
    connection.execute(text("DROP TABLE chaos_journal"))
    if connection.dialect.name == "postgresql":
        for number, _ in enumerate(write_log.WATCHED):
            connection.execute(text(f"DROP FUNCTION chaos_{number} CASCADE"))


@pytest.mark.parametrize(
    ("statements", "twice"),
    [
        ([ORDER, DONE], {}),
        ([ACCESS, "UPDATE entitlements SET changes = 2"], {}),  # the checker knows that there is but one
        ([DONE, f"{DONE} ON CONFLICT (job_id) DO UPDATE SET job_id = 'job'"], {"effects.job_id": "job job"}),
        ([DONE, "DELETE FROM effects", DONE], {"effects.job_id": "job job"}),
        ([ORDER, "UPDATE orders SET state = 'fulfilled'"], {"orders.state": "cs_1 fulfilled"}),
        ([ORDER, "DELETE FROM orders", ORDER], {"orders.state": "cs_1 fulfilled"}),
        (
            [ACCESS, "DELETE FROM entitlements", ACCESS],
            {"entitlements.changes": "cs_1 book 1", "entitlements.revoked_at": "cs_1 book none"},
        ),
    ],
)
def test_a_write_that_comes_again_is_there_twice(
    connection: Connection, statements: list[str], twice: dict[str, str]
) -> None:
    for statement in statements:
        connection.execute(text(statement))
    assert write_log.repeated_writes(connection) == {
        f"writes of {what}": Counter({name: 2}) for what, name in twice.items()
    }
