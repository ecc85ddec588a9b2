"""Signature schemes, each in two steps: the head of a delivery, before its body is read; then the body.

A scheme returns the check of the body, which returns the index in `secrets` of the first secret that signed the
delivery. Both raise BadSignature and never any other error, whatever headers and body contain. They are pure functions.
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


# body -> index of the secret
BodyCheck = Callable[[str], int]
# (request, secrets, now in seconds since 1970, tolerance in seconds) -> the check of its body
Scheme = Callable[[Request, Sequence[str], float, int], BodyCheck]


def stripe(request: Request, secrets: Sequence[str], now: float, tolerance: int) -> BodyCheck:
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
    _check_age(int(times[0]), now, tolerance)

    def check(body: str) -> int:
        signed = f"{times[0]}.{body}".encode()
        expected = (_hmac_sha256(secret, signed) for secret in secrets)
        index = _first_index(any(_equal(theirs, ours) for theirs in signatures) for ours in expected)
        if index is None:
            message = "no signature matches: is this endpoint's signing secret the one in STRIPE_WEBHOOK_SECRET?"
            raise BadSignature("signature", message)
        return index

    return check


def standard(request: Request, secrets: Sequence[str], now: float, tolerance: int) -> BodyCheck:
    """`webhook-id`, `webhook-timestamp`, `webhook-signature`, as Standard Webhooks 1.0 specifies them."""
    identity, stamp, given = (request.headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not (identity and stamp and given):
        message = "one of the headers webhook-id, webhook-timestamp and webhook-signature is missing"
        raise BadSignature("unsigned", message)
    if not _is_timestamp(stamp):
        raise BadSignature("unsigned", "webhook-timestamp is not a whole number of seconds")
    _check_age(int(stamp), now, tolerance)
    when = datetime.fromtimestamp(int(stamp), UTC)
    presented = [signature.encode("utf-8", "replace") for signature in given.split(" ")]

    def check(body: str) -> int:
        expected = (Webhook(secret).sign(identity, when, body).encode() for secret in secrets)
        index = _first_index(any(hmac.compare_digest(ours, theirs) for theirs in presented) for ours in expected)
        if index is None:
            raise BadSignature("signature", "no signature matches: is the source's secret the one in our settings?")
        return index

    return check


def hmac_sha256(header: str) -> Scheme:
    """`<header>: sha256=<hex>` of the body, as GitHub signs (https://docs.github.com/webhooks, "Validating webhook
    deliveries"); `sha256=` is optional. No time is signed, so a captured delivery can be replayed at any time."""

    def scheme(request: Request, secrets: Sequence[str], _now: float, _tolerance: int) -> BodyCheck:
        given = _required_header(request, header).removeprefix("sha256=").lower()

        def check(body: str) -> int:
            expected = (_hmac_sha256(secret, body.encode()) for secret in secrets)
            return _require_match(_first_index(_equal(given, ours) for ours in expected), f"the signature in {header}")

        return check

    return scheme


def bearer(header: str) -> Scheme:
    """`<header>: <secret>`, or `<header>: Bearer <secret>`."""

    def scheme(request: Request, secrets: Sequence[str], _now: float, _tolerance: int) -> BodyCheck:
        kind, _, key = _required_header(request, header).rpartition(" ")
        allowed = kind.strip().lower() in ("", "bearer")
        matches = _first_index(allowed and _equal(key, secret) for secret in secrets)
        index = _require_match(matches, f"the key in {header}")
        return lambda _body: index

    return scheme


def callback_token(request: Request, secrets: Sequence[str], _now: float, _tolerance: int) -> BodyCheck:
    """`?document=<our id>&token=<token>`, which are part of the callback URL that the document service was given."""
    document, given = request.args.get("document", ""), request.args.get("token", "")
    if not document or not given:
        raise BadSignature("unsigned", "document and token are missing in the query of the URL")
    matches = _first_index(_equal(given, token(secret, document)) for secret in secrets)
    index = _require_match(matches, "the token in the URL")
    return lambda _body: index


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
