"""Reading what senders sent: tolerant of what we do not use, strict about what an effect needs.

The texts of the errors name a field and what it should be, never what it held: payloads hold personal data.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from inbox.errors import PermanentError

T = TypeVar("T")

Text = Annotated[str, Meta(pattern=r"^[^\x00]*\Z")]  # Postgres keeps no NUL in a text
Id = Annotated[str, Meta(pattern=r"^[^\x00]*\Z", max_length=255)]  # so do Stripe's; longer ones fit in no index
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # what a BIGINT holds
UnixTime = Annotated[int, Meta(ge=0, le=253_402_300_799)]  # since 1970, up to the last year that a date can hold


class Expanded(Struct):
    """An object that Stripe sends in place of its id, where somebody asked it to expand the field."""

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
    """The body as `shape`. Raises PermanentError, naming the field."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the payload does not fit: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise PermanentError("the payload is not JSON") from None
    except UnicodeDecodeError:
        raise PermanentError("the payload is not UTF-8") from None


def convert(found: Any, shape: type[T]) -> T:
    """What an API answered, as `shape`. Raises PermanentError, naming the field."""
    try:
        return msgspec.convert(found, type=shape)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the answer does not fit: {error}") from None


def require(value: T | None, field: str) -> T:
    """`value`, which the effect cannot do without. Raises PermanentError, naming the field."""
    if value is None or value == "":
        raise PermanentError(f"the payload lacks {field}")
    return value


def ref(value: Ref) -> str | None:
    """The id, whether it came alone or as an expanded object."""
    return value.id if isinstance(value, Expanded) else value
