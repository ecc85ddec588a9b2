"""The real receiver, which knows the handlers of tests/handlers.py and dies where HOLDFAST_TEST_DIE says."""

from __future__ import annotations

from inbox.store import Store
from tests.handlers import die_around, register_handlers
from web import __main__ as web
from web.front import Front


def application() -> Front:
    """Made in each serving process."""
    register_handlers()
    die_around(Store, "record_all", "before the record", "after the record, before the doorbell and the 200")
    return web.application()


if __name__ == "__main__":
    web.main("tests.receiver_app:application")
