"""What arrived: the event and the jobs that a sender's message makes, whichever way it came to us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inbox.errors import BadPayload, WrongMode
from inbox.event import Event, NewEvent
from tasks.routes import jobs_for

IDENTITY = re.compile(r"[!-~]{1,255}")  # printable ASCII without spaces; Stripe's ids have at most 255 characters


@dataclass(frozen=True, slots=True)
class EventIdentity:
    """What is read of an event before it is recorded; the full parse is the worker's."""

    id: str
    type: str
    ordering_key: str = ""
    args: Mapping[str, str] = field(default_factory=dict)  # for its jobs: ids that the body does not hold
    wanted: bool = True  # False: recorded, and nothing is done about it


def build_delivery(source: str, peeked: EventIdentity, body: bytes, secret: str = "") -> NewEvent:
    """What to record of a message, the same for one that was delivered and one that we had to fetch."""
    jobs = jobs_for(source, peeked.id, peeked.type, peeked.ordering_key, peeked.args) if peeked.wanted else ()
    return NewEvent(Event(source, peeked.id, peeked.type, body), jobs, secret)


# --- Stripe: https://docs.stripe.com/api/events/object, thin: https://docs.stripe.com/api/v2/core/events/object -------


class _StripeObject(msgspec.Struct):
    id: Any = None
    customer: Any = None
    customer_account: Any = None


class _StripeData(msgspec.Struct):
    object: _StripeObject | None = None


class _StripeEvent(msgspec.Struct):
    id: str
    type: str
    data: _StripeData | None = None
    related_object: _StripeObject | None = None  # of a thin event, which has no data
    account: Any = None
    context: Any = None
    livemode: Any = None


_stripe_event = msgspec.json.Decoder(_StripeEvent)


def identify_stripe_event(body: str, mode: str = "any") -> EventIdentity:
    """The event's own id and type, if it is of our `mode` (live, test, any). Raises BadPayload, WrongMode.

    Events of one customer never run at once, so their rows are safe from each other.
    """
    event = decode(_stripe_event, body)
    account = event.account or event.context  # ids are unique within an account
    subject = event.related_object or (event.data.object if event.data else None)
    owner = (subject.customer or subject.customer_account or subject.id) if subject else None
    if isinstance(owner, dict):  # an expanded customer
        owner = owner.get("id")
    key = stripe_ordering_key(account, owner)
    wanted = _of_mode(mode, event.livemode, connected=bool(account))
    return EventIdentity(identity(event.id, "id"), identity(event.type, "type"), key, wanted=wanted)


def stripe_ordering_key(account: Any, owner: Any) -> str:
    """What the jobs of one customer share, or of the object itself; "" where that is no id."""
    owner = f"{account}/{owner}" if account and owner else owner
    return f"stripe:{owner}" if isinstance(owner, str) and IDENTITY.fullmatch(owner) else ""


def _of_mode(mode: str, livemode: Any, *, connected: bool) -> bool:
    """Is it an event of our mode? Raises WrongMode where a person must mend something.

    A refused delivery comes again for up to three days and is shown to whoever owns the endpoint: right for one wired
    to the wrong receiver, which gets its events as soon as that is mended. But Stripe sends the test events of
    connected accounts to the live endpoint on purpose (https://docs.stripe.com/connect/webhooks): there is nothing to
    mend, and an endpoint that goes on failing may be switched off, live events and all. Those are recorded, and
    nothing is done about them.
    """
    if mode == "any" or livemode is (mode == "live"):
        return True
    if mode == "live" and livemode is False and connected:
        return False
    raise WrongMode(f"livemode is not {str(mode == 'live').lower()}: this receiver takes {mode} events (STRIPE_MODE)")


def decode(decoder: msgspec.json.Decoder[Any], body: str) -> Any:
    """The body as the decoder's shape. Raises BadPayload, which names a field and never a value."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:  # names the field and the types, never a value
        raise BadPayload(f"the body is not an event of this source: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadPayload("the body is not JSON") from None


def identity(value: str, field: str) -> str:
    """`value`, which is to be part of a key. Raises BadPayload, naming the field."""
    if not IDENTITY.fullmatch(value):
        raise BadPayload(f"{field} takes 1 to 255 printable ASCII characters without spaces")
    return value
