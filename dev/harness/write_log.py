"""A log of every write, kept by triggers in the database, also where a unique key allows only one row.

A row that is deleted and written again, overwritten under its key, or set twice to the same state looks right at the
end; in the log it is there twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, create_engine, text


@dataclass(frozen=True, slots=True)
class Watched:
    """A table, the key of its rows, and a column that may be set to each value once per row."""

    table: str
    key: str
    state: str


WATCHED = (
    Watched("effects", "NEW.job_id", "job_id"),
    Watched("payment_failures", "NEW.event_id", "event_id"),
    Watched("payment_retries", "NEW.invoice || ' ' || NEW.number", "state"),
    Watched("payment_graces", "NEW.invoice || ' ' || NEW.number", "state"),
    Watched("orders", "NEW.session_id", "state"),
    Watched("orders", "NEW.session_id", "access_changes"),
    Watched("entitlements", "NEW.session_id || ' ' || NEW.product", "revoked_at"),
    Watched("notifications", "NEW.id", "state"),
    Watched("documents", "NEW.document_id", "task_id"),
    Watched("documents", "NEW.document_id", "stored_as"),
)
TABLE = "CREATE TABLE chaos_journal (what TEXT NOT NULL, name TEXT NOT NULL)"
TWICE = "SELECT what, name, count(*) FROM chaos_journal GROUP BY 1, 2 HAVING count(*) > 1"


def begin(database_url: str) -> None:
    """Create the triggers, in a database that has its tables."""
    engine = create_engine(database_url)
    with engine.begin() as connection:
        for statement in _statements(engine):
            connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def twice(connection: Connection) -> dict[str, Counter[str]]:
    """What was written more than once, by table and column, then by key and value."""
    found: dict[str, Counter[str]] = {}
    for what, name, times in connection.execute(text(TWICE)):
        found.setdefault(f"writes of {what}", Counter())[name] = times
    return found


def _statements(engine: Engine) -> Iterator[str]:
    yield TABLE
    for number, one in enumerate(WATCHED):
        what = f"{one.table}.{one.state}"
        name = f"{one.key} || ' ' || coalesce(CAST(NEW.{one.state} AS TEXT), 'none')"
        note = f"INSERT INTO chaos_journal VALUES ('{what}', {name});"
        make = _in_sqlite if engine.dialect.name == "sqlite" else _in_postgres
        yield from make(f"chaos_{number}", one, note)


def _in_sqlite(trigger: str, one: Watched, note: str) -> Iterator[str]:
    for event in ("INSERT", f"UPDATE OF {one.state}"):
        yield f"CREATE TRIGGER {trigger}_{event[:6]} AFTER {event} ON {one.table} BEGIN {note} END"


def _in_postgres(trigger: str, one: Watched, note: str) -> Iterator[str]:
    yield f"CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note} RETURN NULL; END $$"
    when = f"AFTER INSERT OR UPDATE OF {one.state} ON {one.table}"
    yield f"CREATE TRIGGER {trigger} {when} FOR EACH ROW EXECUTE FUNCTION {trigger}()"
