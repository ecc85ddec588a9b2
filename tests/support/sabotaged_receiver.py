"""The real receiver; with "200 before the record" in HOLDFAST_SABOTAGE it answers before the event is recorded, and the
chaos run must detect that."""

from __future__ import annotations

import asyncio
import os

from inbox.event import NewEvent
from web import __main__ as web
from web import serving
from web.receiver.asgi import AsgiApp
from web.receiver.group_commit import GroupCommit

record = GroupCommit.record


def _answer_first(group: GroupCommit, arrival: NewEvent) -> asyncio.Future[bool]:
    record(group, arrival).add_done_callback(asyncio.Future.exception)  # not awaited
    recorded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    recorded.set_result(True)
    return recorded


def application() -> AsgiApp:
    """Called in each serving process."""
    if os.environ.get("HOLDFAST_SABOTAGE") == "200 before the record":
        GroupCommit.record = _answer_first  # type: ignore[assignment, method-assign]
    return serving.application()


if __name__ == "__main__":
    web.main("tests.support.sabotaged_receiver:application")
