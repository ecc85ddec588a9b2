"""Inserting and locking rows under concurrency, on SQLite and Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tasks.models import Base

Row = TypeVar("Row", bound=Base)


def insert_if_new(db: Session, row: type[Base], **values: Any) -> bool:
    """Insert a row, unless one with the same unique key exists. Returns whether it was inserted.

    It is one statement, so that two concurrent jobs cannot both find the row missing: the second waits for the first.
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
    """The row as it is now, locked until the end of this transaction; None if there is none."""
    return db.get(row, key, with_for_update=True, populate_existing=True)


def advisory_lock(db: Session, keys: Iterable[str]) -> None:
    """Take Postgres' advisory locks for these keys until the end of this transaction.

    They serialize work on rows that may not exist yet and so cannot be locked. Take them before locking rows, to avoid
    deadlocks. On SQLite this does nothing: only one transaction writes at a time, from its start (BEGIN IMMEDIATE).
    """
    if db.get_bind().dialect.name == "postgresql":
        for key in sorted(keys):
            db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
