"""Calls to Holdfast's own API."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests


class Api:
    """The API of a running stack. Raises requests.RequestException for every response but 2xx."""

    def __init__(self, address: str, key: str) -> None:
        self._address = f"{address}/api/v1"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {key}"

    def stats(self) -> dict[str, int]:
        return self._get("stats")

    def add_agent(self, name: str, url: str) -> str:
        """Returns the secret that signs the agent's messages."""
        answer = self._session.post(f"{self._address}/agents", json={"name": name, "url": url}, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["secret"])

    def events(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Every event of the record by (source, id), each with its jobs and their attempts."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        cursor = None
        while True:
            page = self._get("events", {"cursor": cursor} if cursor else {})
            found |= {(event["source"], event["id"]): event for event in page["events"]}
            cursor = page["cursor"]
            if cursor is None:
                return found

    def running_jobs(self, task: str) -> int:
        """How many jobs of this task are running, among those of the newest events."""
        jobs = [job for event in self._get("events")["events"] for job in event["jobs"]]
        return sum(job["task"] == task and job["state"] == "running" for job in jobs)

    def _get(self, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._session.get(f"{self._address}/{path}", params=query, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())


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
