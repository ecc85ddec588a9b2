"""How the simulated document service treats a document: chosen by the start of its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

BEHAVIOURS = {
    "twice-": "every callback is sent twice under one webhook-id",
    "early-": "`completed` is called back a second before /process answers",
    "late-": "`processing` is called back after `completed`",
    "fails-": "ends as `failed`, with an error_message",
    "flaky-": "the first task fails with a temporary error",
    "busy-": "/process answers 503 twice before it accepts the job",
    "silent-": "no callback; the status must be polled",
    "lost-": "the first task is forgotten at once",
    "big-": "the result is 4 MB",
    "slow-": "the download takes two seconds",
    "breaks-": "the first download breaks off half-way",
    "moved-": "the result URL redirects",
    "forbidden-": "the result URL is one that must not be called",
}
FAIL = ("fails-", "forbidden-")  # how the ids of documents start that must end as failed
ERROR = "page 3 cannot be read"
FORBIDDEN = "https://169.254.169.254/latest/meta-data/iam/security-credentials/"  # of the machine, in many clouds
CALLBACKS = {"twice-": 2, "silent-": 0}  # how often each is sent, if not once


@dataclass(frozen=True, slots=True)
class Task:
    """One accepted job."""

    id: str
    document_id: str
    callback_url: str
    number: int  # of this document's tasks; 1 for the first

    @property
    def behaviour(self) -> str:
        """One of BEHAVIOURS, or another start of the id."""
        return self.document_id.partition("-")[0] + "-"

    @property
    def lost(self) -> bool:
        return self.behaviour == "lost-" and self.number == 1


def steps(task: Task, url: str) -> list[dict[str, Any]]:
    """The callbacks, in the order in which they are sent; `url` is the service's own."""
    sent = [{"status": "queued", "progress": 0}, {"status": "processing", "progress": 40}, ending(task, url)]
    return [*sent, {"status": "processing", "progress": 80}] if task.behaviour == "late-" else sent


def ending(task: Task, url: str) -> dict[str, Any]:
    """The callback that ends the task."""
    if task.behaviour == "fails-":
        return {"status": "failed", "error_message": ERROR}
    if task.behaviour == "flaky-" and task.number == 1:
        return {"status": "failed", "error_message": "temporarily out of machines"}
    folder = "moved" if task.behaviour == "moved-" else "files"
    result = FORBIDDEN if task.behaviour == "forbidden-" else f"{url}/{folder}/{quote(task.document_id)}"
    return {"status": "completed", "progress": 100, "result_url": result}
