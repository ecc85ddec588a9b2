"""How a document fares at the simulated document service: chosen by the start of its id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

WAYS = {
    "twice-": "every callback is sent twice under one webhook-id",
    "early-": "`completed` is called back a second before /process answers",
    "late-": "a `processing` comes after `completed`",
    "fails-": "ends as `failed`, with an error_message",
    "flaky-": "the first task fails for a reason that passes",
    "busy-": "/process answers 503 twice before it takes the job",
    "silent-": "nobody is called back; who asks is told",
    "lost-": "the first task is forgotten at once",
    "big-": "the result is 4 MB",
    "slow-": "the result is sent in pieces, over two seconds",
    "breaks-": "the result breaks off half-way, once",
    "moved-": "the result is at an address that redirects",
    "forbidden-": "the result is said to be at an address that nobody should call",
}
FAIL = ("fails-", "forbidden-")  # how the ids of documents start that must end as failed
FORBIDDEN = "https://169.254.169.254/latest/meta-data/iam/security-credentials/"  # of the machine, in many clouds
CALLBACKS = {"twice-": 2, "silent-": 0}  # how often each is sent, if not once


@dataclass(frozen=True, slots=True)
class Task:
    """One accepted document."""

    id: str
    document_id: str
    callback_url: str
    number: int  # of this document's tasks; 1 for the first

    @property
    def way(self) -> str:
        """One of WAYS, or some other beginning."""
        return self.document_id.partition("-")[0] + "-"

    @property
    def lost(self) -> bool:
        return self.way == "lost-" and self.number == 1


def steps(task: Task, address: str) -> list[dict[str, Any]]:
    """What is called back, in this order."""
    told = [{"status": "queued", "progress": 0}, {"status": "processing", "progress": 40}, ending(task, address)]
    return [*told, {"status": "processing", "progress": 80}] if task.way == "late-" else told


def ending(task: Task, address: str) -> dict[str, Any]:
    """The last of them; `address` is the service's own."""
    if task.way == "fails-":
        return {"status": "failed", "error_message": "page 3 cannot be read"}
    if task.way == "flaky-" and task.number == 1:
        return {"status": "failed", "error_message": "temporarily out of machines"}
    folder = "moved" if task.way == "moved-" else "files"
    result = FORBIDDEN if task.way == "forbidden-" else f"{address}/{folder}/{quote(task.document_id)}"
    return {"status": "completed", "progress": 100, "result_url": result}
