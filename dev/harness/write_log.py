"""A log of every write, kept by triggers in the database, also where a unique key allows only one row.

A row that is deleted and written again, overwritten under its key, or set twice to the same state looks right at the
end; in the log it is there twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sqlalchemy import Connection, NullPool, create_engine, text

# A table, the key of its rows, and a column that may be set to each value once per row.
WATCHED = (
    ("effects", "NEW.job_id", "job_id"),
    ("payment_failures", "NEW.event_id", "event_id"),
    ("payment_retries", "NEW.invoice || ' ' || NEW.number", "state"),
    ("payment_graces", "NEW.invoice || ' ' || NEW.number", "state"),
    ("orders", "NEW.session_id", "state"),
    ("entitlements", "NEW.source || ' ' || NEW.product", "changes"),
    ("entitlements", "NEW.source || ' ' || NEW.product", "revoked_at"),
    ("notifications", "NEW.id", "state"),
    ("documents", "NEW.document_id", "task_id"),
    ("documents", "NEW.document_id", "stored_as"),
)
TABLE = "CREATE TABLE chaos_journal (what TEXT NOT NULL, name TEXT NOT NULL)"
REPEATED = "SELECT what, name, count(*) FROM chaos_journal GROUP BY 1, 2 HAVING count(*) > 1"


def create_triggers(database_url: str) -> None:
    """Create the triggers, in a database that has its tables."""
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        for statement in _statements(connection.dialect.name):
            connection.exec_driver_sql(statement.replace("%", "%%"))


def repeated_writes(connection: Connection) -> dict[str, Counter[str]]:
    """What was written more than once, by table and column, then by key and value."""
    found: dict[str, Counter[str]] = {}
    for what, name, times in connection.execute(text(REPEATED)):
        found.setdefault(f"writes of {what}", Counter())[name] = times
    return found


def _statements(dialect: str) -> Iterator[str]:
    yield TABLE
    for number, (table, key, column) in enumerate(WATCHED):
        value = f"{key} || ' ' || coalesce(CAST(NEW.{column} AS TEXT), 'none')"
        log = f"INSERT INTO chaos_journal VALUES ('{table}.{column}', {value});"
        trigger = f"CREATE TRIGGER chaos_{number}"
        if dialect == "sqlite":
            yield f"{trigger}_insert AFTER INSERT ON {table} BEGIN {log} END"
            yield f"{trigger}_update AFTER UPDATE OF {column} ON {table} BEGIN {log} END"
        else:
            body = f"RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {log} RETURN NULL; END $$"
            yield f"CREATE FUNCTION chaos_{number}() {body}"
            when = f"AFTER INSERT OR UPDATE OF {column} ON {table}"
            yield f"{trigger} {when} FOR EACH ROW EXECUTE FUNCTION chaos_{number}()"
