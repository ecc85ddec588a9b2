"""Decoding of payloads: unknown and unused fields are ignored, fields that a handler requires are checked.

Errors name a field and what it must be, never its value: payloads hold personal data.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from inbox.errors import PermanentError

T = TypeVar("T")

Text = Annotated[str, Meta(pattern=r"^[^\x00]*\Z")]  # Postgres rejects NUL in text
Id = Annotated[str, Meta(pattern=r"^[^\x00]*\Z", max_length=255)]  # as Stripe's ids; a longer one does not fit an index
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # the range of BIGINT
UnixTime = Annotated[
    int, Meta(ge=0, le=253_402_300_799)
]  # seconds since 1970, up to the year 9999, the last that datetime supports


class Expanded(Struct):
    """An object in place of its id: Stripe sends it if the field is expanded."""

    id: Id


Ref = Id | Expanded | None


class StripeData(Struct, Generic[T]):
    object: T


class StripeEvent(Struct, Generic[T]):
    """Stripe's event around an object: `parse(body, StripeEvent[Payout])`. https://docs.stripe.com/api/events/object"""

    data: StripeData[T]
    created: UnixTime | None = None
    account: Id | None = None  # the connected account that the event comes from


def parse(body: bytes, shape: type[T]) -> T:
    """Decode a JSON body as `shape`. Raises PermanentError, which names the field."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the payload has an unexpected shape: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise PermanentError("the payload is not JSON") from None
    except UnicodeDecodeError:
        raise PermanentError("the payload is not UTF-8") from None


def convert(found: Any, shape: type[T]) -> T:
    """Convert an API's decoded response to `shape`. Raises PermanentError, which names the field."""
    try:
        return msgspec.convert(found, type=shape)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the response has an unexpected shape: {error}") from None


def require(value: T | None, field: str) -> T:
    """Return `value`. Raises PermanentError, which names the field, if it is None or empty."""
    if value is None or value == "":
        raise PermanentError(f"the payload lacks {field}")
    return value


def ref(value: Ref) -> str | None:
    """The id of a reference, expanded or not."""
    return value.id if isinstance(value, Expanded) else value
