"""The real worker app with the handlers of tests/handlers.py: `celery -A tests.worker_app worker`."""

from __future__ import annotations

from inbox.store import Store
from tests.handlers import die_around, register_handlers
from workers import run

register_handlers()
die_around(Store, "lease", "after the pop, before the lease", "after the lease")
die_around(run.Runner, "_effect", "before the effect", "after the SQL commit, before finish")
die_around(Store, "finish", "before finish", "after finish")

from workers.app import app  # noqa: E402, F401  last, for it registers what stands in TASKS
