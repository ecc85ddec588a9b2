"""Check tasks/routes.py at start-up, in the receiver and in the workers, before any event arrives.

The workers also check two things that need imports that the receiver avoids: the handlers (workers/app.py) and
the Stripe event types (tasks/stripe_types.py).
"""

from __future__ import annotations

from settings import Settings
from settings.sources import BUILT_IN_SOURCES
from tasks.routes import QUEUES, ROUTES, TASKS


class RouteError(Exception):
    """tasks/routes.py has an error; str() is the one-line message for the start-up output."""


def check(settings: Settings) -> None:
    """Raises RouteError for the first entry with an unknown queue, task or source, or with a time limit that is not
    shorter than the lease."""
    sources = (*BUILT_IN_SOURCES, *settings.sources)
    for name, task in TASKS.items():
        if task.queue not in QUEUES:
            raise RouteError(f"tasks/routes.py: the queue of {name} must be {_or(QUEUES)}, not {task.queue!r}")
        if task.time_limit_seconds >= settings.lease_seconds and not task.renews:
            raise RouteError(
                f"tasks/routes.py: the time limit of {name} must be less than LEASE_SECONDS ({settings.lease_seconds}),"
                f" not {task.time_limit_seconds}, unless its handler calls attempt.renew() and it has renews=True"
            )
    for (source, kind), name in ROUTES.items():
        if name not in TASKS:
            raise RouteError(f"tasks/routes.py routes {source} {kind} to {name}, which is not in TASKS")
        if source not in sources:
            raise RouteError(f"tasks/routes.py routes {source} {kind}; the source must be {_or(sources)}")


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(names)
