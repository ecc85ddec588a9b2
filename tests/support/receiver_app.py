"""The real receiver, which knows the handlers of tests/support/handlers.py and dies where HOLDFAST_TEST_DIE says."""

from __future__ import annotations

from collections.abc import Iterable

from inbox.job import Doorbell
from inbox.recorder import Recorder
from inbox.store import Store
from tasks import broker
from tasks.broker import BackgroundRinger
from tests.support.handlers import DIE, die_around, die_at, register_handlers
from web import __main__ as web
from web.receiver.asgi import AsgiApp

RUNG = "after the doorbell, before the 200"


def application() -> AsgiApp:
    """Made in each serving process."""
    register_handlers()
    die_around(Recorder, "record_all", "before the record", "after the record, before the doorbell and the 200")
    die_around(Store, "replay", "before the replay", "after the replay, before the doorbell")
    if RUNG in DIE:
        BackgroundRinger.ring = ring_and_die  # type: ignore[assignment,method-assign]
    return web.application()


def ring_and_die(_: BackgroundRinger, bells: Iterable[Doorbell]) -> None:
    """Here and now, and not from a thread of its own, which would be a race with the 200."""
    broker.ring(list(bells))
    die_at(RUNG)


if __name__ == "__main__":
    web.main("tests.support.receiver_app:application")
