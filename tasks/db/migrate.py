"""Alembic migrations of the business database; `python -m tasks.upgrade` runs them for DATABASE_URL.

Apart from tasks/db/engine.py, because importing Alembic takes a third of a second and workers do not need it.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from settings import SettingsError, load
from tasks.db.engine import make_engine
from tasks.private_files import keep_files_private

MIGRATIONS = Path(__file__).parents[1] / "migrations"
MIGRATION_LOCK = 7_418_523_690_113  # an arbitrary number, not used by any other advisory lock in this database


def migrate(url: str) -> None:
    """Bring the schema up to date, in one transaction. Concurrent calls by several processes are safe."""
    config, engine = _config(), make_engine(url)
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # on SQLite, BEGIN IMMEDIATE is the lock
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # an index takes as long as it takes
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def current_and_head(url: str) -> tuple[str | None, str | None]:
    """(the database's revision, the newest revision). Raises SQLAlchemyError.

    Changes nothing, except that connecting creates the file of a missing SQLite database.
    """
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
    keep_files_private()
    try:
        migrate(load().database_url)
    except SettingsError as error:
        raise SystemExit(f"holdfast: {error}") from None
