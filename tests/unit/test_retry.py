"""The decision on a failed attempt, as a table."""

from __future__ import annotations

import pytest

from inbox.errors import PermanentError, TransientError
from inbox.retry import Bury, Policy, RetryAt, decide

POLICY = Policy(base_seconds=5, cap_seconds=60, max_attempts=4)
NOW = 1_000_000


@pytest.mark.parametrize(
    ("error", "attempt", "jitter", "seconds"),
    [
        (TransientError("down"), 1, 0.0, 2.5),
        (TransientError("down"), 1, 0.999, 4.997),
        (TransientError("down"), 2, 0.0, 5),
        (TransientError("down"), 3, 0.0, 10),
        (TransientError("come back in a minute", retry_after_seconds=60), 1, 0.5, 60),
        (TransientError("come back at once", retry_after_seconds=1), 3, 0.0, 10),
        (ZeroDivisionError(), 1, 0.0, 2.5),
    ],
)
def test_an_attempt_is_tried_again_later_and_later(
    error: Exception, attempt: int, jitter: float, seconds: float
) -> None:
    assert decide(POLICY, error, attempt, NOW, jitter) == RetryAt(NOW + int(seconds * 1000))


def test_the_delay_never_passes_its_cap_however_many_attempts() -> None:
    policy = Policy(base_seconds=5, cap_seconds=60, max_attempts=1000)
    assert decide(policy, TransientError("down"), 999, NOW, 0.999999) == RetryAt(NOW + 59_999)


@pytest.mark.parametrize(
    ("error", "attempt", "reason"),
    [
        (PermanentError("no such field"), 1, "permanent"),
        (TransientError("down"), 4, "still failing after 4 attempts"),
    ],
)
def test_an_attempt_that_cannot_be_helped_is_buried(error: Exception, attempt: int, reason: str) -> None:
    assert decide(POLICY, error, attempt, NOW, 0.0) == Bury(reason)
