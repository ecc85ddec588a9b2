"""What the log says of refused webhooks: a line a minute for each source and reason, or strangers would fill it."""

from __future__ import annotations

import structlog

log = structlog.get_logger()

EVERY_SECONDS = 60.0


class RejectionLog:
    """Of one process. Threads that meet here may say a line twice."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def log(self, source: str, reason: str, now: float) -> None:
        """The first at once; then one in EVERY_SECONDS, with the `count` of those since the line before. `now` is in
        seconds, by any clock that does not run back."""
        said, unsaid = self._said.get((source, reason), (float("-inf"), 0))
        if now - said < EVERY_SECONDS:
            self._said[source, reason] = said, unsaid + 1
            return
        self._said[source, reason] = now, 0
        log.warning("refused", source=source, reason=reason, count=unsaid + 1)
