"""Check the Stripe event types of tasks/routes.py against the installed stripe library.

Workers and `holdfast doctor` do this; the receiver does not, because importing stripe costs 8 MB and 0.12 s a process.
"""

from __future__ import annotations

import difflib
from typing import get_args

import stripe
from stripe.events import UnknownEventNotification
from stripe.v2.core import EventNotification

from tasks.route_check import RouteError
from tasks.routes import NEWER_TYPES, ROUTES

SNAPSHOTS = get_args(stripe.Event.__annotations__["type"])  # all types of snapshot events that the library knows
CLIENT = stripe.StripeClient("none")  # building a notification requires a client; it makes no call


def check() -> None:
    """Raises RouteError for the first route of a Stripe event type that the library does not know."""
    for source, kind in ROUTES:
        if source == "stripe" and kind != "*" and not _is_known(kind):
            message = f"tasks/routes.py routes stripe {kind}, a type that the installed stripe library does not know"
            raise RouteError(f"{message}{_suggestion(kind)}")


def _is_known(kind: str) -> bool:
    return kind in SNAPSHOTS or kind in NEWER_TYPES or not isinstance(_thin(kind), UnknownEventNotification)


def _thin(kind: str) -> EventNotification:
    """A thin event of this type, as the library parses it: it has a class for each type that it knows."""
    about = {"id": "", "type": "", "url": ""}
    event = {"id": "", "object": "v2.core.event", "type": kind, "created": "", "related_object": about}
    return EventNotification.from_json(event, CLIENT)


def _suggestion(kind: str) -> str:
    close = difflib.get_close_matches(kind, SNAPSHOTS, 1)
    return f"; did you mean {close[0]}?" if close else " (add a newer type to NEWER_TYPES)"
