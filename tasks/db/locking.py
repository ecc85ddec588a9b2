"""Finding and making rows while others do the same, on SQLite and Postgres alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tasks.models import Base

Row = TypeVar("Row", bound=Base)


def insert_if_new(db: Session, row: type[Base], **values: Any) -> bool:
    """Insert, unless a row with this unique key exists; says whether it did.

    One statement, so that two jobs at once cannot both find the row missing; the second one waits for the first.
    """
    insert = postgresql.insert if db.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(row).values(**values).on_conflict_do_nothing().returning(*row.__mapper__.primary_key)
    return db.execute(statement).first() is not None


def upsert_locked(db: Session, row: type[Row], **values: Any) -> tuple[Row, bool]:
    """Insert a row unless its primary key exists; return the row, locked, and whether it is new.

    An existing row keeps its values: the caller decides what to change.
    """
    new = insert_if_new(db, row, **values)
    key = tuple(values[column.name] for column in row.__mapper__.primary_key)
    return db.get_one(row, key, with_for_update=True, populate_existing=True), new


def select_for_update(db: Session, row: type[Row], key: Any) -> Row | None:
    """The row as it is now, which nobody else can change until the end of this transaction."""
    return db.get(row, key, with_for_update=True, populate_existing=True)


def advisory_lock(db: Session, keys: Iterable[str]) -> None:
    """Wait until nobody else who names one of these keys is in a transaction, and keep them out until this one ends.

    For what no row can be locked for, because it may not exist yet. Call it before rows are locked, or two wait for
    each other. On SQLite a transaction is alone from its start.
    """
    if db.get_bind().dialect.name == "postgresql":
        for key in sorted(keys):
            db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
