"""From a message of a source to the event and the jobs to record, whether it was delivered or fetched."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inbox.errors import BadPayload, WrongMode
from inbox.event import Event, NewEvent
from tasks import payloads
from tasks.connected_accounts import account_name, within
from tasks.routes import jobs_for

IDENTITY = re.compile(r"[!-~]{1,255}")  # printable ASCII without spaces; Stripe's ids have at most 255 characters


@dataclass(frozen=True, slots=True)
class EventIdentity:
    """The fields of an event that are read before it is recorded; the worker parses the rest."""

    id: str
    type: str
    ordering_key: str = ""
    args: Mapping[str, str] = field(default_factory=dict)  # for its jobs: ids that are not in the body
    signed: str = ""  # as in NewEvent
    has_jobs: bool = True  # False: the event is recorded, but no handler runs


def build_delivery(source: str, event: EventIdentity, body: bytes, secret: str = "") -> NewEvent:
    """The event and its jobs, as they are recorded; the same for a delivered and for a fetched event."""
    jobs = jobs_for(source, event.id, event.type, event.ordering_key, event.args) if event.has_jobs else ()
    return NewEvent(Event(source, event.id, event.type, body), jobs, secret, event.signed)


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


def identify_stripe_event(body: str, mode: str = "any", accounts: Collection[str] = ()) -> EventIdentity:
    """Id, type and ordering key of a Stripe event. Raises BadPayload, or WrongMode if it is not of our `mode`.

    `mode` is live, test or any. `accounts` are the connected accounts whose events are handled: no handler runs for
    those of any other, because its owner decides what is in them. Jobs of one customer share an ordering key and so
    never run at the same time, because they change the same rows.
    """
    event = decode(_stripe_event, body)
    account = account_name(event.account, event.context)
    subject = event.related_object or (event.data.object if event.data else None)
    owner = (subject.customer or subject.customer_account or subject.id) if subject else None
    if isinstance(owner, dict):  # an expanded customer
        owner = owner.get("id")
    key = stripe_ordering_key(account, owner)
    has_jobs = _is_of_mode(mode, event.livemode, connected=bool(account)) and (not account or account in accounts)
    return EventIdentity(identity(event.id, "id"), identity(event.type, "type"), key, has_jobs=has_jobs)


def stripe_ordering_key(account: str, owner: Any) -> str:
    """The ordering key of the jobs of `owner`: a customer, or else the object itself; "" if that is not a valid id."""
    owner = within(account, owner) if isinstance(owner, str) and owner else owner
    return f"stripe:{owner}" if isinstance(owner, str) and IDENTITY.fullmatch(owner) else ""


def _is_of_mode(mode: str, livemode: Any, *, connected: bool) -> bool:
    """Whether an event is of our mode. Raises WrongMode if a person must correct something.

    Stripe shows a rejected delivery to the endpoint's owner and retries it for up to three days. That is right for an
    endpoint that is connected to the wrong receiver: it gets its events as soon as that is corrected. But Stripe sends
    the test events of connected accounts to the live endpoint by design (https://docs.stripe.com/connect/webhooks):
    there is nothing to correct, and Stripe may disable an endpoint that keeps failing, including its live events. For
    those False is returned: they are recorded, and no handler runs.
    """
    if mode == "any" or livemode is (mode == "live"):
        return True
    if mode == "live" and livemode is False and connected:
        return False
    raise WrongMode(f"livemode is not {str(mode == 'live').lower()}: this receiver accepts {mode} events (STRIPE_MODE)")


def decode(decoder: msgspec.json.Decoder[Any], body: str) -> Any:
    """Decode a JSON body. Raises BadPayload, whose text names a field and never a value."""
    try:
        return payloads.decode(decoder, body)
    except msgspec.ValidationError as error:  # names the field and the types, never a value
        raise BadPayload(f"the body is not an event of this source: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise BadPayload("the body is not JSON") from None


def identity(value: str, field: str) -> str:
    """Return `value`, if it can be part of a key. Raises BadPayload, which names the field, if not."""
    if not IDENTITY.fullmatch(value):
        raise BadPayload(f"{field} must be 1 to 255 printable ASCII characters without spaces")
    return value
