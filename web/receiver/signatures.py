"""Signature schemes: pure functions of (headers and query, body, secrets, now).

Each returns the index in `secrets` of the first secret that signed the delivery, or raises BadSignature and never any
other error, whatever headers and body contain.
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
    """Texts by name; the name of a header in any case."""

    def get(self, name: str, default: str, /) -> str: ...


class Request(Protocol):
    """A webhook request without its body."""

    @property
    def headers(self) -> Values: ...
    @property
    def args(self) -> Values:
        """Of the address, behind the question mark."""


# (request, body, secrets, now in seconds since 1970, tolerance in seconds) -> index of the secret
Scheme = Callable[[Request, str, Sequence[str], float, int], int]


def stripe(request: Request, body: str, secrets: Sequence[str], now: float, tolerance: int) -> int:
    """`Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]`, https://docs.stripe.com/webhooks#verify-manually."""
    header = request.headers.get("Stripe-Signature", "")
    if not header:
        raise BadSignature("unsigned", "the Stripe-Signature header is missing")
    pairs = [item.strip().partition("=")[::2] for item in header.split(",")]
    times = [value for name, value in pairs if name.strip() == "t"]
    signatures = [value for name, value in pairs if name == "v1"]
    # Exactly one t, so that the timestamp whose age is checked is the signed one.
    if len(times) != 1 or not _is_timestamp(times[0]) or not signatures:
        raise BadSignature("unsigned", "the Stripe-Signature header is not t=<seconds>,v1=<signature>")
    signed = f"{times[0]}.{body}".encode()
    expected = (_hmac_sha256(secret, signed) for secret in secrets)
    index = _first_index(any(_equal(theirs, ours) for theirs in signatures) for ours in expected)
    if index is None:
        message = "no signature matches: is this endpoint's signing secret the one in STRIPE_WEBHOOK_SECRET?"
        raise BadSignature("signature", message)
    _check_age(int(times[0]), now, tolerance)
    return index


def standard(request: Request, body: str, secrets: Sequence[str], now: float, tolerance: int) -> int:
    """`webhook-id`, `webhook-timestamp`, `webhook-signature`, as Standard Webhooks 1.0 specifies them."""
    identity, stamp, given = (request.headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not (identity and stamp and given):
        message = "one of the headers webhook-id, webhook-timestamp and webhook-signature is missing"
        raise BadSignature("unsigned", message)
    if not _is_timestamp(stamp):
        raise BadSignature("unsigned", "webhook-timestamp is not a whole number of seconds")
    when = datetime.fromtimestamp(int(stamp), UTC)
    expected = (Webhook(secret).sign(identity, when, body).encode() for secret in secrets)
    presented = [signature.encode("utf-8", "replace") for signature in given.split(" ")]
    index = _first_index(any(hmac.compare_digest(ours, theirs) for theirs in presented) for ours in expected)
    if index is None:
        raise BadSignature("signature", "no signature matches: is the source's secret the one in our settings?")
    _check_age(int(stamp), now, tolerance)
    return index


def hmac_sha256(header: str) -> Scheme:
    """`<header>: sha256=<hex>` of the body, as GitHub signs (https://docs.github.com/webhooks, "Validating webhook
    deliveries"); `sha256=` is optional. No time is signed, so a captured delivery can be replayed at any time."""

    def verify(request: Request, body: str, secrets: Sequence[str], _now: float, _tolerance: int) -> int:
        given = _required_header(request, header).removeprefix("sha256=").lower()
        expected = (_hmac_sha256(secret, body.encode()) for secret in secrets)
        return _require_match(_first_index(_equal(given, ours) for ours in expected), f"the signature in {header}")

    return verify


def bearer(header: str) -> Scheme:
    """`<header>: <secret>`, or `<header>: Bearer <secret>`."""

    def verify(request: Request, _body: str, secrets: Sequence[str], _now: float, _tolerance: int) -> int:
        kind, _, key = _required_header(request, header).rpartition(" ")
        allowed = kind.strip().lower() in ("", "bearer")
        return _require_match(
            _first_index(allowed and _equal(key, secret) for secret in secrets), f"the key in {header}"
        )

    return verify


def callback_token(request: Request, _body: str, secrets: Sequence[str], _now: float, _tolerance: int) -> int:
    """`?document=<our id>&token=<token>`, which are part of the callback URL that the document service was given."""
    document, given = request.args.get("document", ""), request.args.get("token", "")
    if not document or not given:
        raise BadSignature("unsigned", "document and token are missing in the query of the URL")
    return _require_match(
        _first_index(_equal(given, token(secret, document)) for secret in secrets), "the token in the URL"
    )


def _hmac_sha256(secret: str, signed: bytes) -> str:
    """In hex. hmac.digest creates no intermediate object: this is the hot path."""
    return hmac.digest(secret.encode(), signed, "sha256").hex()


def _required_header(request: Request, header: str) -> str:
    value = request.headers.get(header, "").strip()
    if not value:
        raise BadSignature("unsigned", f"the {header} header is missing")
    return value


def _equal(given: str, ours: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), ours.encode())


def _require_match(index: int | None, what: str) -> int:
    if index is None:
        raise BadSignature("signature", f"{what} does not match the secret in our settings")
    return index


def _first_index(matches: Iterable[bool]) -> int | None:
    return next((index for index, matched in enumerate(matches) if matched), None)


def _is_timestamp(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _check_age(stamp: int, now: float, tolerance: int) -> None:
    if abs(now - stamp) > tolerance:
        raise BadSignature("timestamp", f"the timestamp is more than {tolerance} seconds away from now")
