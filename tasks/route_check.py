"""Could every route of tasks/routes.py be taken? The receiver and the workers ask at start-up, before anything arrives.

That each handler is there, only the workers can say (workers/app.py): the receiver imports none.
"""

from __future__ import annotations

import difflib
from typing import get_args

import stripe
from stripe.events import UnknownEventNotification
from stripe.v2.core import EventNotification

from settings import Settings
from settings.sources import BUILT_IN_SOURCES
from tasks.routes import NEWER_TYPES, QUEUES, ROUTES, TASKS

SNAPSHOTS = get_args(stripe.Event.__annotations__["type"])  # as the installed library lists them
NOWHERE = stripe.StripeClient("none")  # notifications take a client; this one is never asked


class RouteError(Exception):
    """tasks/routes.py is wrong; str() is one line for a person."""


def check(settings: Settings) -> None:
    """Raises RouteError on the first entry that names a queue, a task, a source or an event type there is not, or that
    lets a job outlive its lease."""
    sources = (*BUILT_IN_SOURCES, *settings.sources)
    for name, task in TASKS.items():
        if task.queue not in QUEUES:
            raise RouteError(f"tasks/routes.py sends {name} to the queue {task.queue!r}; it takes {_or(QUEUES)}")
        if task.time_limit_seconds >= settings.lease_seconds and not task.renews:
            raise RouteError(
                f"tasks/routes.py gives {name} {task.time_limit_seconds} seconds; it takes less than LEASE_SECONDS"
                f" ({settings.lease_seconds}), or renews=True of a handler that calls attempt.renew()"
            )
    for (source, kind), name in ROUTES.items():
        route = f"tasks/routes.py routes {source} {kind}"
        if name not in TASKS:
            raise RouteError(f"{route} to {name}, which is not in TASKS")
        if source not in sources:
            raise RouteError(f"{route}: the source takes {_or(sources)}")
        if source == "stripe" and kind != "*" and not _known_to_stripe(kind):
            raise RouteError(f"{route}, a type that the installed stripe library does not know{_meant(kind)}")


def _known_to_stripe(kind: str) -> bool:
    return kind in SNAPSHOTS or kind in NEWER_TYPES or not isinstance(_thin(kind), UnknownEventNotification)


def _thin(kind: str) -> EventNotification:
    """A thin event of this type, as the library would read it: it has a class for each that it knows."""
    about = {"id": "", "type": "", "url": ""}
    event = {"id": "", "object": "v2.core.event", "type": kind, "created": "", "related_object": about}
    return EventNotification.from_json(event, NOWHERE)


def _meant(kind: str) -> str:
    close = difflib.get_close_matches(kind, SNAPSHOTS, 1)
    return f"; did you mean {close[0]}?" if close else " (one that is newer goes into NEWER_TYPES)"


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(words)
