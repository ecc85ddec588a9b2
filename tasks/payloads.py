"""Decoding of payloads: unknown and unused fields are ignored, fields that a handler requires are checked.

A text may hold two things that no database stores: NUL, and half of a surrogate pair, which JavaScript writes for an
emoji that was cut in two (RFC 8259, 8.2). In their place U+FFFD is read, and only in an id is that an error.

Errors name a field and what it must be, never its value: payloads hold personal data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from inbox.errors import PermanentError

T = TypeVar("T")

ESCAPES = re.compile(
    r"(?P<fine>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])"
    r"|\\u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
)
PRODUCT = re.compile(r"[^\x00\ufffd]{0,255}")

Text = Annotated[str, Meta(pattern=r"^[^\x00]*\Z")]
ShortText = Annotated[str, Meta(pattern=r"^[^\x00]*\Z", max_length=255)]  # a longer one does not fit an index
Id = Annotated[str, Meta(pattern=r"^[^\x00\ufffd]*\Z", max_length=255)]  # Stripe's ids have at most 255 characters
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
        return decode(msgspec.json.Decoder(shape), body)
    except msgspec.ValidationError as error:
        raise PermanentError(f"the payload has an unexpected shape: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise PermanentError("the payload is not JSON") from None
    except UnicodeDecodeError:
        raise PermanentError("the payload is not UTF-8") from None


def decode(decoder: msgspec.json.Decoder[T], body: bytes | str) -> T:
    """Decode JSON; characters that cannot be stored do no harm. Raises msgspec's errors and RecursionError."""
    try:
        return decoder.decode(body)
    except msgspec.DecodeError:
        text = body if isinstance(body, str) else body.decode()
        storable = make_storable(text)
        if storable == text:
            raise
        return decoder.decode(storable)


def make_storable(text: str) -> str:
    """The JSON text with U+FFFD in place of each NUL and each half of a surrogate pair, which can only be escapes."""
    if "\\u" not in text:
        return text
    return ESCAPES.sub(lambda found: found["fine"] or r"\ufffd", text)


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


def short(text: str | None) -> str | None:
    """The text; None if it is too long for an index, and so for what it should be."""
    return text if text and len(text) <= 255 else None


def metadata_of(found: Mapping[str, Any] | None) -> dict[str, str]:
    """The metadata of a Stripe object, as stored: its texts. https://docs.stripe.com/api/metadata"""
    texts = {key: value for key, value in (found or {}).items() if isinstance(value, str)}
    return {key: value.replace("\0", "\ufffd") for key, value in texts.items() if "\0" not in key}


def product_of(found: Mapping[str, Any] | None) -> str | None:
    """The product named in the metadata, whose values its owner chooses; None if it cannot be the id of one."""
    product = (found or {}).get("product")
    return product if isinstance(product, str) and product and PRODUCT.fullmatch(product) else None
