"""How a delivery proves who sent it: pure functions of (headers and query, body, secrets, now).

The outcome is the place in `secrets` of the first that signed it, or BadSignature: whatever a header or body holds,
never another error.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from standardwebhooks import Webhook

from tasks.documents.callback_url import token
from web.errors import BadSignature


class Values(Protocol):
    """Texts by name; a header's name in whatever case."""

    def get(self, name: str, default: str, /) -> str: ...


class Delivery(Protocol):
    """What a request says beside its body."""

    @property
    def headers(self) -> Values: ...
    @property
    def args(self) -> Values:
        """Of the address, behind the question mark."""


# (delivery, body, secrets, now in seconds since 1970, tolerance in seconds)
Scheme = Callable[[Delivery, str, Sequence[str], float, int], int]


def stripe(delivery: Delivery, body: str, secrets: Sequence[str], now: float, tolerance: int) -> int:
    """`Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]`, https://docs.stripe.com/webhooks#verify-manually."""
    header = delivery.headers.get("Stripe-Signature", "")
    if not header:
        raise BadSignature("unsigned", "the Stripe-Signature header is missing")
    pairs = [item.strip().partition("=")[::2] for item in header.split(",")]
    times = [value for name, value in pairs if name.strip() == "t"]
    signatures = [value for name, value in pairs if name == "v1"]
    # Exactly one t: what is checked for age is what was signed.
    if len(times) != 1 or not _whole(times[0]) or not signatures:
        raise BadSignature("unsigned", "the Stripe-Signature header is not t=<seconds>,v1=<signature>")
    signed = f"{times[0]}.{body}".encode()
    expected = (_hmac_sha256(secret, signed) for secret in secrets)
    place = _first(any(_same(theirs, ours) for theirs in signatures) for ours in expected)
    if place is None:
        words = "no signature matches: is this endpoint's signing secret the one in STRIPE_WEBHOOK_SECRET?"
        raise BadSignature("signature", words)
    _check_age(int(times[0]), now, tolerance)
    return place


def standard(delivery: Delivery, body: str, secrets: Sequence[str], now: float, tolerance: int) -> int:
    """`webhook-id`, `webhook-timestamp`, `webhook-signature`, as Standard Webhooks 1.0 specifies them."""
    identity, stamp, given = (delivery.headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not (identity and stamp and given):
        words = "one of the headers webhook-id, webhook-timestamp and webhook-signature is missing"
        raise BadSignature("unsigned", words)
    if not _whole(stamp):
        raise BadSignature("unsigned", "webhook-timestamp is not a whole number of seconds")
    when = datetime.fromtimestamp(int(stamp), UTC)
    expected = (Webhook(secret).sign(identity, when, body).encode() for secret in secrets)
    presented = [signature.encode("utf-8", "replace") for signature in given.split(" ")]
    place = _first(any(hmac.compare_digest(ours, theirs) for theirs in presented) for ours in expected)
    if place is None:
        raise BadSignature("signature", "no signature matches: is the sender's secret the one in our settings?")
    _check_age(int(stamp), now, tolerance)
    return place


def hmac_sha256(header: str) -> Scheme:
    """`<header>: sha256=<hex>` of the body, as GitHub signs (https://docs.github.com/webhooks, "Validating webhook
    deliveries"); the `sha256=` may be left out. No time is signed, so a delivery may be repeated by whoever saw it."""

    def verify(delivery: Delivery, body: str, secrets: Sequence[str], _now: float, _tolerance: int) -> int:
        given = _given(delivery, header).removeprefix("sha256=").lower()
        expected = (_hmac_sha256(secret, body.encode()) for secret in secrets)
        return _place(_first(_same(given, ours) for ours in expected), f"the signature in {header}")

    return verify


def bearer(header: str) -> Scheme:
    """`<header>: <secret>`, or `<header>: Bearer <secret>`."""

    def verify(delivery: Delivery, _body: str, secrets: Sequence[str], _now: float, _tolerance: int) -> int:
        kind, _, key = _given(delivery, header).rpartition(" ")
        known = kind.strip().lower() in ("", "bearer")
        return _place(_first(known and _same(key, secret) for secret in secrets), f"the key in {header}")

    return verify


def callback_token(delivery: Delivery, _body: str, secrets: Sequence[str], _now: float, _tolerance: int) -> int:
    """`?document=<our id>&token=<token>`, as the callback address had it that the sender was given."""
    document, given = delivery.args.get("document", ""), delivery.args.get("token", "")
    if not document or not given:
        raise BadSignature("unsigned", "the address lacks the document and the token that it was given with")
    return _place(_first(_same(given, token(secret, document)) for secret in secrets), "the address's token")


def _hmac_sha256(secret: str, signed: bytes) -> str:
    """In hex; by the one call that makes no object on the way, for the hot path."""
    return hmac.digest(secret.encode(), signed, "sha256").hex()


def _given(delivery: Delivery, header: str) -> str:
    value = delivery.headers.get(header, "").strip()
    if not value:
        raise BadSignature("unsigned", f"the {header} header is missing")
    return value


def _same(given: str, ours: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), ours.encode())


def _place(place: int | None, what: str) -> int:
    if place is None:
        raise BadSignature("signature", f"{what} is not by the secret in our settings")
    return place


def _first(answers: Iterable[bool]) -> int | None:
    """The place of the first yes."""
    return next((place for place, answer in enumerate(answers) if answer), None)


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _check_age(stamp: int, now: float, tolerance: int) -> None:
    if abs(now - stamp) > tolerance:
        raise BadSignature("timestamp", f"the timestamp is more than {tolerance} seconds away from now")
