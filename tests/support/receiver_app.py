"""The real receiver with the handlers of tests/support/handlers.py; it dies at the crash point in HOLDFAST_TEST_DIE."""

from __future__ import annotations

from collections.abc import Iterable

from inbox.job import Doorbell
from tasks import broker
from tasks.broker import BackgroundRinger
from tests.support.crash_points import RECEIVER
from tests.support.handlers import DIE, die_around_each, die_at, register_handlers
from web import __main__ as web
from web import serving
from web.receiver.asgi import AsgiApp

RUNG = "after the doorbell, before the 200"


def application() -> AsgiApp:
    """Called in each serving process."""
    register_handlers()
    die_around_each(RECEIVER)
    if RUNG in DIE:
        BackgroundRinger.ring = ring_and_die  # type: ignore[assignment,method-assign]
    return serving.application()


def ring_and_die(_: BackgroundRinger, bells: Iterable[Doorbell]) -> None:
    """Rings in this thread: a background thread would race with the 200."""
    broker.ring(list(bells))
    die_at(RUNG)


if __name__ == "__main__":
    web.main("tests.support.receiver_app:application")
