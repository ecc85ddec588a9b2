"""Compiled SQL for all engines of a test process on SQLite.

SQLAlchemy compiles a statement once per engine, and most tests have an engine of their own: compiling took a third of
their CPU. A compiled statement belongs to a dialect object, so the engines share that, too.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy import Engine, event

import tasks.db.engine

_first: dict[str, Engine] = {}  # by the name of its dialect; it has connected, so its dialect knows the server


def share_compiled_statements() -> None:
    """All SQLite engines that tasks.db.engine creates in this process from now on share their compiled statements."""
    tasks.db.engine.create_engine = _create_engine  # type: ignore[assignment, attr-defined]


def _create_engine(url: str, **options: Any) -> Engine:
    engine = sqlalchemy.create_engine(url, **options)
    first = _first.get(engine.dialect.name)
    if engine.dialect.name == "postgresql":
        return engine  # its pool would connect without the listeners of `do_connect`, which belong to a dialect
    if first:
        engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
    else:
        event.listen(engine, "connect", lambda *_: _first.setdefault(engine.dialect.name, engine))
    return engine
