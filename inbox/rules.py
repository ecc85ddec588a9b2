"""The settings of the scripts."""

from __future__ import annotations

from dataclasses import dataclass

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Rules:
    """A doorbell that no worker answered is rung again after ring_again_seconds."""

    max_attempts: int = 15
    retention_days: int = 35  # Stripe resends for up to 30 days; ids must be kept longer than that
    payload_days: int = 7  # after success
    ring_again_seconds: int = 10
    worker_timeout_seconds: float = 10  # without a heartbeat

    def script_args(self) -> tuple[int, int, int, int]:
        """As scripts/common.lua takes them; times in milliseconds."""
        return (
            self.ring_again_seconds * 1000,
            self.max_attempts,
            self.retention_days * DAY_MS,
            self.payload_days * DAY_MS,
        )
