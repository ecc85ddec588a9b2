"""What the outcome of an HTTP call means for the job that made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from inbox.errors import PermanentError, TransientError

MAX_WAIT_SECONDS = 86400  # the longest Retry-After that is obeyed
RETRYABLE_STATUSES = frozenset({408, 425, 429})  # besides 5xx


class NoAnswer(TransientError):
    """There was no response, or it was cut off."""


def raise_for_status(peer: str, status: int, headers: Mapping[str, str], now: datetime) -> None:
    """Return for 2xx. Raises TransientError for 5xx and RETRYABLE_STATUSES, PermanentError for every other status."""
    if 200 <= status < 300:
        return
    message = f"{peer} answered {status}"
    if status >= 500 or status in RETRYABLE_STATUSES:
        raise TransientError(message, retry_after_seconds(headers, now))
    raise PermanentError(message)


def retry_after_seconds(headers: Mapping[str, str], now: datetime) -> int:
    """The Retry-After header (seconds or a date) in seconds from now; 0 if it is missing, in the past or malformed."""
    raw = headers.get("Retry-After", "").strip()
    if raw.isascii() and raw.isdigit():
        return min(int(raw[:9]), MAX_WAIT_SECONDS)
    try:
        at = parsedate_to_datetime(raw)
    except ValueError:
        return 0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(int((at - now).total_seconds()), 0), MAX_WAIT_SECONDS)


@contextmanager
def connection_errors(peer: str, *errors: type[Exception]) -> Iterator[None]:
    """Raise NoAnswer in place of these `errors` of a library, because their texts may quote what `peer` sent."""
    try:
        yield
    except errors as error:
        raise NoAnswer(f"{peer} did not answer ({type(error).__name__})") from None
