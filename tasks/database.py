"""The business database: engine and sessions for SQLite and Postgres, and its tables brought up to date.

python -m tasks.database        upgrade DATABASE_URL to the newest tables
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from settings import SettingsError, load

MIGRATION_LOCK = 7_418_523_690_113  # any number that nobody else uses as an advisory lock in this database


def make_engine(url: str) -> Engine:
    """An engine for `url`; connects lazily, and its errors quote no values.

    On SQLite a commit is on disk before it returns, as on Postgres.
    """
    if not url.startswith("sqlite"):
        how = {"connect_timeout": 5, "client_encoding": "utf8"}  # told, because an old database may itself be SQL_ASCII
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=2, connect_args=how)
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": 15})
    event.listen(engine, "connect", _tune_sqlite)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def make_sessions(engine: Engine) -> Callable[[], Session]:
    """A factory of sessions; rows stay readable after a commit, since handlers commit before they call out."""
    return sessionmaker(engine, expire_on_commit=False)


def upgrade(url: str) -> None:
    """Bring the tables up to date: in one transaction, and one process at a time, so that every part may call this."""
    config, engine = _config(), make_engine(url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # on SQLite, BEGIN IMMEDIATE is the lock
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def revisions(url: str) -> tuple[str | None, str | None]:
    """(what the tables are now, what they should be). Raises SQLAlchemyError. Changes nothing; but connecting makes the
    file of a SQLite database that is not there."""
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            now = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return now, ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not open transactions of its own: see _begin_immediate
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Any) -> None:
    """Take the write lock first: a transaction that reads and then writes would fail on a concurrent writer."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


if __name__ == "__main__":
    try:
        upgrade(load().database_url)
    except SettingsError as error:
        raise SystemExit(f"holdfast: {error}") from None
