"""Stripe's list of events and its deliveries: signs and sends each event, and lists those that were not delivered.

https://docs.stripe.com/api/events/list, https://docs.stripe.com/webhooks
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress

import requests

from cli.stripe_events import StripeObject, signature
from dev.simulators.stripe_objects import listed

MAX_LIMIT = 100
MAX_TIME = 2**63


class BadRequest(Exception):
    """A request that Stripe would answer with 400."""


class EventLog:
    """All events, oldest first."""

    def __init__(self, webhook_url: str = "", secret: str = "") -> None:
        self.webhook_url, self.secret = webhook_url, secret
        self.events: list[StripeObject] = []
        self.undelivered: set[str] = set()

    def add(self, event: StripeObject, now: int) -> None:
        """Keep an event and try to deliver it once."""
        self.events.append(event)
        self.undelivered.add(event["id"])
        body = json.dumps(event, indent=2).encode()  # Stripe pretty-prints: code that re-serializes the body fails here
        headers = {"Stripe-Signature": signature(body, self.secret, now), "Content-Type": "application/json"}
        with suppress(requests.RequestException):
            if requests.post(self.webhook_url, body, headers=headers, timeout=10).ok:
                self.undelivered.discard(event["id"])

    def page(self, query: Mapping[str, Sequence[str]]) -> StripeObject:
        """One page of the list, the newest first. Raises BadRequest as Stripe would refuse."""
        one = {name: values[0] for name, values in query.items()}
        types = {value for name, value in one.items() if name == "type" or name.startswith("types[")}
        first, last = (int(one.get(f"created[{end}]", default)) for end, default in (("gte", 0), ("lte", MAX_TIME)))
        delivered = {"true": (True,), "false": (False,)}.get(one.get("delivery_success", ""), (True, False))
        chosen = [
            event
            for event in reversed(self.events)
            if first <= event["created"] <= last
            and (not types or event["type"] in types)
            and (event["id"] not in self.undelivered) in delivered
        ]
        limit = int(one.get("limit", 10))
        if not 1 <= limit <= MAX_LIMIT or len(types) > 20:
            raise BadRequest("limit must be between 1 and 100, with at most 20 types")
        if after := one.get("starting_after"):
            chosen = chosen[self._position_after(chosen, after) :]
        return listed("/v1/events", chosen[:limit], more=len(chosen) > limit)

    def _position_after(self, chosen: list[StripeObject], after: str) -> int:
        """Where the list continues after the event `after`. That may have been delivered since, so that it is not in
        the list any more."""
        order = {event["id"]: number for number, event in enumerate(self.events)}
        if after not in order:
            raise BadRequest(f"No such event: '{after}'")
        return sum(order[event["id"]] >= order[after] for event in chosen)
