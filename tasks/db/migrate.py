"""Alembic migrations of the business database; `python -m tasks.upgrade` runs them for DATABASE_URL.

Beside tasks/db/engine.py, because Alembic takes a third of a second to load, and no worker needs it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from settings import SettingsError, load
from tasks.db.engine import make_engine

MIGRATIONS = Path(__file__).parents[1] / "migrations"
MIGRATION_LOCK = 7_418_523_690_113  # any number that nobody else uses as an advisory lock in this database


def migrate(url: str) -> None:
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


def current_and_head(url: str) -> tuple[str | None, str | None]:
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
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def main() -> None:
    try:
        migrate(load().database_url)
    except SettingsError as error:
        raise SystemExit(f"holdfast: {error}") from None
