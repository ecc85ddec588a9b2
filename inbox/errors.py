"""All errors of the project, and whether a retry may help.

HoldfastError
├── TransientError          a retry may help: a peer is down, a row is locked, a callback came before its reply
│   ├── NotNow              too early: nothing was tried, so no attempt is counted
│   └── StoreUnavailable    Redis cannot be reached, is full or is read-only; nothing was recorded in part
├── PermanentError          a retry cannot help: the payload lacks what the effect needs
│   └── BadPayload          the payload is not an event of its source at all; nothing was recorded
│       └── WrongMode       it is an event of Stripe's test mode and we are live, or the reverse
└── LeaseLost               another worker holds this job now: stop, change nothing, report nothing

Their texts appear in Flower, in logs and in the API, so they never contain personal data, secrets or payloads.
"""


class HoldfastError(Exception):
    """The root; never raised itself."""


class TransientError(HoldfastError):
    """A retry may help. retry_after_seconds is the minimum wait if the peer named one, else 0."""

    def __init__(self, message: str, retry_after_seconds: int = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotNow(TransientError):
    """Nothing was tried, because it would fail before `at_ms` (milliseconds since 1970)."""

    def __init__(self, message: str, at_ms: int) -> None:
        super().__init__(message)
        self.at_ms = at_ms


class StoreUnavailable(TransientError):
    """The durable record cannot be read or written now."""


class PermanentError(HoldfastError):
    """A retry cannot help; the job becomes a dead letter."""


class BadPayload(PermanentError):
    """The delivery comes from its source, but it is not an event."""

    reason = "payload"  # the reason under which the rejected delivery is counted


class WrongMode(BadPayload):
    """The delivery is an event, but of the other mode."""

    reason = "mode"


class LeaseLost(HoldfastError):
    """The lease expired, and the job was given to another attempt."""
