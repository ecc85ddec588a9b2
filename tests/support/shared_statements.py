"""Compiled SQL for all engines of a test process.

SQLAlchemy compiles a statement once per engine, and most tests have an engine of their own: compiling took a third of
their CPU. A compiled statement belongs to a dialect object, so the engines share that, too.
"""

from __future__ import annotations

from sqlalchemy import Engine, event

import tasks.db.engine

_first: dict[str, Engine] = {}  # by the name of its dialect; it has connected, so its dialect knows the server
_make_engine = tasks.db.engine.make_engine


def share_compiled_statements() -> None:
    """The engines of the modules that this process imports from now on share their compiled statements."""
    tasks.db.engine.make_engine = _make_sharing_engine


def _make_sharing_engine(url: str, threads: int = 1) -> Engine:
    engine = _make_engine(url, threads)  # its listeners and its pool keep its own dialect
    first = _first.get(engine.dialect.name)
    if first:
        engine.dialect, engine._compiled_cache = first.dialect, first._compiled_cache
    else:
        event.listen(engine, "connect", lambda *_: _first.setdefault(engine.dialect.name, engine))
    return engine
