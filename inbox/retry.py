"""What becomes of a failed attempt: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass

from inbox.errors import PermanentError, TransientError


@dataclass(frozen=True, slots=True)
class Policy:
    """Exponential, capped: base x 2^(attempt-1) seconds, never over cap, max_attempts tries in all."""

    base_seconds: int
    cap_seconds: int
    max_attempts: int


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

    `jitter` in [0, 1) spreads jobs that failed together over the upper half of the delay. An error of no known kind
    counts as transient: a deployment may mend the bug behind it before the attempts are used up.
    """
    if isinstance(error, PermanentError):
        return Bury("permanent")
    if attempt >= policy.max_attempts:
        return Bury(f"still failing after {attempt} attempts")
    delay = min(policy.cap_seconds, policy.base_seconds * 2 ** min(attempt - 1, 40)) * (0.5 + jitter / 2)
    if isinstance(error, TransientError):
        delay = max(delay, error.retry_after_seconds)
    return RetryAt(now_ms + int(delay * 1000))
