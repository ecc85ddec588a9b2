"""Log lines for rejected webhooks: one a minute per source and reason, so that strangers cannot fill the log."""

from __future__ import annotations

from typing import Any

import structlog

log = structlog.get_logger()

INTERVAL_SECONDS = 60.0


class RejectionLog:
    """Used from one event loop; from several threads, two lines may come instead of one."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[float, int]] = {}  # when logged, and rejections since

    def log(self, source: str, reason: str, now: float, **more: Any) -> None:
        """Log the first rejection at once, then one line per INTERVAL_SECONDS; `count` is how many it stands for.
        `now` is in seconds of a monotonic clock, `more` is logged with it."""
        logged_at, unlogged = self._last.get((source, reason), (float("-inf"), 0))
        if now - logged_at < INTERVAL_SECONDS:
            self._last[source, reason] = logged_at, unlogged + 1
            return
        self._last[source, reason] = now, 0
        log.warning("rejected", source=source, reason=reason, count=unlogged + 1, **more)
