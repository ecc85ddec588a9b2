"""What the API says about the record of a running stack."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from cli.api import Api

Recorded = Mapping[tuple[str, str], dict[str, Any]]  # by source and id: an event with its jobs and their attempts


def read_events(api: Api) -> Recorded:
    """Every event of the record."""
    return {(event["source"], event["id"]): event for event in api.rows("events", sys.maxsize)}


def wait_for_jobs(read: Callable[[], tuple[int, bool]], patience_seconds: float) -> bool:
    """`read` returns how many jobs have succeeded, and whether all are finished. Returns when they are.

    Returns False if no job has been finished for `patience_seconds`, so that none will be.
    """
    most, moved = -1, time.monotonic()
    while time.monotonic() < moved + patience_seconds:
        succeeded, finished = read()
        if finished:
            return True
        if succeeded > most:
            most, moved = succeeded, time.monotonic()
        time.sleep(0.2)
    return False
