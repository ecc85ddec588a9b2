"""What the outcome of an HTTP call means for the job that made it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from inbox.errors import PermanentError, TransientError

MAX_WAIT_SECONDS = 86400  # the longest Retry-After that is obeyed
RETRYABLE_STATUSES = frozenset({408, 425, 429})  # besides 5xx


class NoAnswer(TransientError):
    """There was no response, or it was cut off."""


class DeadlineReached(TransientError):
    """The attempt's time limit was reached before the call, or before its end."""


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


def end_of_call(peer: str, seconds: float, deadline: float) -> float:
    """The time.monotonic() by which a call must end: in `seconds`, or at the `deadline` of its attempt.

    Raises DeadlineReached if that has passed.
    """
    now = time.monotonic()
    if now >= deadline:
        raise DeadlineReached(f"the job reached its time limit before the call of {peer}")
    return min(now + seconds, deadline)


@contextmanager
def connection_errors(peer: str, *errors: type[Exception], deadline: float = math.inf) -> Iterator[None]:
    """Raise NoAnswer in place of these `errors` of a library, because their texts may quote what `peer` sent.

    DeadlineReached if the `deadline` (time.monotonic()) of the attempt has passed.
    """
    try:
        yield
    except errors as error:
        if time.monotonic() >= deadline:
            raise DeadlineReached(f"the job reached its time limit in the call of {peer}") from None
        raise NoAnswer(f"{peer} did not answer ({type(error).__name__})") from None
