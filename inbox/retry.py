"""What becomes of a failed attempt: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inbox.errors import PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Policy:
    """Exponential, capped: base x 2^(attempt-1) seconds, never over cap, max_attempts tries in all.

    Or by a schedule: the seconds from each try to the next, and one try more than it has entries.
    """

    base_seconds: int
    cap_seconds: int
    max_attempts: int
    schedule: Sequence[int] = ()

    @property
    def attempts(self) -> int:
        """How many tries a job has."""
        return len(self.schedule) + 1 if self.schedule else self.max_attempts

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after this one. Those that failed together come back spread: over the upper half of an
        exponential delay, over a tenth up and down of one that somebody has written down."""
        if self.schedule:
            return self.schedule[attempt - 1] * (0.9 + jitter / 5)
        return min(self.cap_seconds, self.base_seconds << min(attempt - 1, 40)) * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at this time (milliseconds since 1970)."""

    due_ms: int


@dataclass(frozen=True, slots=True)
class Bury:
    """Keep it as a dead letter."""

    reason: str


def decide(policy: Policy, error: BaseException, attempt: int, now_ms: int, jitter: float) -> RetryAt | Bury:
    """Retry or bury a job whose `attempt` (1 for the first) ended in `error`.

    `jitter` is in [0, 1). An error of no known kind counts as transient: a deployment may mend the bug behind it before
    the attempts are used up.
    """
    if isinstance(error, PermanentError):
        return Bury("permanent")
    if attempt >= policy.attempts:
        return Bury(f"still failing after {attempt} attempts")
    delay = policy.delay(attempt, jitter)
    if isinstance(error, TransientError):
        delay = max(delay, error.retry_after_seconds)
    return RetryAt(now_ms + int(delay * 1000))
