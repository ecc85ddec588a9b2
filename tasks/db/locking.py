"""Inserting and locking rows under concurrency, on SQLite and Postgres."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from sqlalchemy import Executable, Select, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from inbox.errors import PermanentError
from tasks.models import Base
from tasks.models.base import OfAccount

Row = TypeVar("Row", bound=Base)


def insert_if_new(db: Session, row: type[Base], **values: Any) -> bool:
    """Insert a row, unless one with the same unique key exists. Returns whether it was inserted.

    It is one statement, so that two concurrent jobs cannot both find the row missing: the second waits for the first.
    """
    statement = _insert_if_new(row, db.get_bind().dialect.name)
    return db.execute(statement, _insert_parameters(row, values)).first() is not None


@cache
def _insert_if_new(row: type[Base], dialect: str) -> ReturningInsert[Any]:
    return _insert(row, dialect).returning(*row.__mapper__.primary_key)


def _insert(row: type[Base], dialect: str) -> sqlite.Insert | postgresql.Insert:
    """Of the table, not the class, and built once: both cost several times as much."""
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return insert(cast("Table", row.__table__)).on_conflict_do_nothing()


def _insert_parameters(row: type[Base], values: Mapping[str, Any]) -> dict[str, Any]:
    columns = row.__mapper__.columns
    return {columns[name].key: value for name, value in values.items()}


def upsert_locked(db: Session, row: type[Row], **values: Any) -> tuple[Row, bool]:
    """Insert a row unless its primary key exists; return the row, locked, and whether it is new.

    An existing row keeps its values: the caller decides what to change. Raises PermanentError if it belongs to another
    account (OfAccount).
    """
    key = tuple(values[column.name] for column in row.__mapper__.primary_key)
    found, new = select_for_update(db, row, key), False
    if found is None:
        found, new = insert_or_lock(db, row, **values)
    if isinstance(found, OfAccount) and found.account != values["account"]:
        raise PermanentError(f"{key[0]} in {row.__tablename__} belongs to another Stripe account")
    return found, new


def insert_or_lock(db: Session, row: type[Row], **values: Any) -> tuple[Row, bool]:
    """Insert a row that was just not found; return it, locked, and whether it is new: another job may be faster."""
    inserted = _insert_and_load(row, db.get_bind().dialect.name)
    found = db.scalars(inserted, _insert_parameters(row, values)).one_or_none()
    if found is not None:
        return found, True
    key = tuple(values[column.name] for column in row.__mapper__.primary_key)
    return db.scalars(_select_for_update(row), _key_parameters(key)).one(), False


@cache
def _insert_and_load(row: type[Row], dialect: str) -> Executable:
    return select(row).from_statement(_insert(row, dialect).returning(*row.__table__.columns))


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
