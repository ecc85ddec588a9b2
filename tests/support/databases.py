"""Databases for tests on one Postgres server."""

from __future__ import annotations

import itertools

from dev.stack.postgres import Postgres
from tasks.models import Base

NUMBERS = itertools.count(1)


def fresh_postgres(server: Postgres) -> str:
    """The URL of a database with all tables, empty. One serves all tests: emptying is quicker than copying."""
    names = ", ".join(table.name for table in Base.metadata.sorted_tables)
    server.sql(f"TRUNCATE {names} RESTART IDENTITY", "test")
    return server.url("test")


def empty_postgres(server: Postgres) -> str:
    """The URL of a new database without any table."""
    name = f"empty{next(NUMBERS)}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)
