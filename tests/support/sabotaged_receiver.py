"""The real receiver, which with the sabotage "200 before the record" in HOLDFAST_SABOTAGE answers before the event is
recorded: the chaos run must find it."""

from __future__ import annotations

import asyncio
import os

from inbox.event import NewEvent
from web import __main__ as web
from web.receiver.asgi import AsgiApp
from web.receiver.group_commit import GroupCommit

record = GroupCommit.record


def _answer_first(group: GroupCommit, arrival: NewEvent) -> asyncio.Future[bool]:
    record(group, arrival).add_done_callback(asyncio.Future.exception)  # in its own time
    recorded: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    recorded.set_result(True)
    return recorded


def application() -> AsgiApp:
    """Made in each serving process."""
    if os.environ.get("HOLDFAST_SABOTAGE") == "200 before the record":
        GroupCommit.record = _answer_first  # type: ignore[assignment, method-assign]
    return web.application()


if __name__ == "__main__":
    web.main("tests.support.sabotaged_receiver:application")
