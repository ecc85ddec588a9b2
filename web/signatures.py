"""How a delivery proves who sent it: pure functions of (headers, raw bytes, secrets, now).

The outcome is the place in `secrets` of the first that signed it, or BadSignature: whatever a header or body holds,
never another error.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from standardwebhooks import Webhook
from stripe import SignatureVerificationError, WebhookSignature

from web.errors import BadSignature


class Headers(Protocol):
    """A request's headers, found whatever their case."""

    def get(self, name: str, default: str, /) -> str: ...


# (headers, body, secrets, now in seconds since 1970, tolerance in seconds)
Scheme = Callable[[Headers, str, Sequence[str], float, int], int]


def stripe(headers: Headers, body: str, secrets: Sequence[str], now: float, tolerance: int) -> int:
    """`Stripe-Signature: t=<seconds>,v1=<hex>[,v1=<hex>]`; see Stripe, "Receive events in your webhook endpoint"."""
    header = headers.get("Stripe-Signature", "")
    if not header:
        raise BadSignature("unsigned", "the Stripe-Signature header is missing")
    pairs = [item.strip().partition("=")[::2] for item in header.split(",")]
    times = [value for name, value in pairs if name.strip() == "t"]
    signatures = [value for name, value in pairs if name == "v1"]
    # Exactly one t, and rebuilt below, so that what is checked for age is what was signed.
    if len(times) != 1 or not _whole(times[0]) or not signatures:
        raise BadSignature("unsigned", "the Stripe-Signature header is not t=<seconds>,v1=<signature>")
    rebuilt = ",".join([f"t={int(times[0])}", *(f"v1={signature}" for signature in signatures)])
    place = _first(_stripe_signed(body, rebuilt, secret) for secret in secrets)
    if place is None:
        words = "no signature matches: is this endpoint's signing secret the one in STRIPE_WEBHOOK_SECRET?"
        raise BadSignature("signature", words)
    _check_age(int(times[0]), now, tolerance)
    return place


def _stripe_signed(body: str, header: str, secret: str) -> bool:
    try:
        return bool(WebhookSignature.verify_header(body, header, secret))
    except (SignatureVerificationError, ValueError, TypeError):  # e.g. a signature with non-ASCII characters
        return False


def standard(headers: Headers, body: str, secrets: Sequence[str], now: float, tolerance: int) -> int:
    """`webhook-id`, `webhook-timestamp`, `webhook-signature`, as Standard Webhooks 1.0 specifies them."""
    identity, stamp, given = (headers.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
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
        raise BadSignature("signature", "no signature matches: is the sender's secret the one in DOC_WEBHOOK_SECRET?")
    _check_age(int(stamp), now, tolerance)
    return place


def _first(answers: Iterable[bool]) -> int | None:
    """The place of the first yes."""
    return next((place for place, answer in enumerate(answers) if answer), None)


def _whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _check_age(stamp: int, now: float, tolerance: int) -> None:
    if abs(now - stamp) > tolerance:
        raise BadSignature("timestamp", f"the timestamp is more than {tolerance} seconds away from now")
