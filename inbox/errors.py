"""Every error of ours, and whether trying again may help.

HoldfastError
├── TransientError          try again later: a peer is down, a row is locked, a callback came before its answer
│   ├── NotNow              its turn has not come: nothing was tried, so nothing is counted
│   └── StoreUnavailable    Redis cannot be reached, is full or is read-only; nothing was half recorded
├── PermanentError          trying again cannot help: the payload lacks what the effect needs
│   └── BadPayload          what arrived is not an event of its source at all; nothing was recorded
│       └── WrongMode       it is one, but of Stripe's test mode where we are live, or the reverse
└── LeaseLost               somebody else owns this job now: stop, change nothing, report nothing

Their texts are shown in Flower, in logs and in the API, so they never hold personal data, secrets or payloads.
"""


class HoldfastError(Exception):
    """The root; never raised itself."""


class TransientError(HoldfastError):
    """Trying again may help. retry_after_seconds, where the peer said when, is the least time to wait."""

    def __init__(self, message: str, retry_after_seconds: int = 0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotNow(TransientError):
    """It would be of no use before `at_ms` (milliseconds since 1970), so it was not tried."""

    def __init__(self, message: str, at_ms: int) -> None:
        super().__init__(message)
        self.at_ms = at_ms


class StoreUnavailable(TransientError):
    """The durable record cannot be written or read now."""


class PermanentError(HoldfastError):
    """Trying again cannot help; the job goes to the dead letters."""


class BadPayload(PermanentError):
    """It comes from whom it says, but it is not an event."""

    reason = "payload"  # what its refusal is counted under


class WrongMode(BadPayload):
    """It is an event, but of the other mode."""

    reason = "mode"


class LeaseLost(HoldfastError):
    """The lease ran out and the job was given to another attempt."""
