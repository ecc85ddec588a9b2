"""Inserting and locking rows under concurrency, on SQLite and Postgres."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Insert, Select, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from inbox.errors import PermanentError
from tasks.models import Base
from tasks.models.base import OfAccount

Row = TypeVar("Row", bound=Base)


def insert_if_new(db: Session, row: type[Base], **values: Any) -> bool:
    """Insert a row, unless one with the same unique key exists. Returns whether it was inserted.

    It is one statement, so that two concurrent jobs cannot both find the row missing: the second waits for the first.
    """
    statement = _insert_if_new(row, db.get_bind().dialect.name)
    columns = row.__mapper__.columns
    return db.execute(statement, {columns[name].key: value for name, value in values.items()}).first() is not None


@cache
def _insert_if_new(row: type[Base], dialect: str) -> Insert:
    """Of the table, not the class, and built once: both cost several times as much."""
    table = cast("Table", row.__table__)
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing().returning(*table.primary_key)


def upsert_locked(db: Session, row: type[Row], **values: Any) -> tuple[Row, bool]:
    """Insert a row unless its primary key exists; return the row, locked, and whether it is new.

    An existing row keeps its values: the caller decides what to change. Raises PermanentError if it belongs to another
    account (OfAccount).
    """
    new = insert_if_new(db, row, **values)
    key = tuple(values[column.name] for column in row.__mapper__.primary_key)
    found = db.scalars(_select_for_update(row), _key_parameters(key)).one()
    if isinstance(found, OfAccount) and found.account != values["account"]:
        raise PermanentError(f"{key[0]} in {row.__tablename__} belongs to another Stripe account")
    return found, new


def select_for_update(db: Session, row: type[Row], key: Any) -> Row | None:
    """The row as it is now, locked until the end of this transaction; None if there is none."""
    return db.scalars(_select_for_update(row), _key_parameters(key)).one_or_none()


@cache
def _select_for_update(row: type[Row]) -> Select[Row]:
    """Built once, because building it at each call costs as much again as running it."""
    matches = [column == bindparam(f"key_{number}") for number, column in enumerate(row.__mapper__.primary_key)]
    return select(row).where(*matches).with_for_update().execution_options(populate_existing=True)


def _key_parameters(key: Any) -> dict[str, Any]:
    values = key if isinstance(key, tuple) else (key,)
    return {f"key_{number}": value for number, value in enumerate(values)}


def advisory_lock(db: Session, keys: Iterable[str]) -> None:
    """Take Postgres' advisory locks for these keys until the end of this transaction.

    They serialize work on rows that may not exist yet and so cannot be locked. Take them before locking rows, to avoid
    deadlocks. On SQLite this does nothing: only one transaction writes at a time, from its start (BEGIN IMMEDIATE).
    """
    if db.get_bind().dialect.name == "postgresql":
        for key in sorted(keys):
            db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
