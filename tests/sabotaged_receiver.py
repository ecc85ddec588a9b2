"""The real receiver; where HOLDFAST_SABOTAGE says so, it answers before anything is written down, for the chaos run to
find out."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

from inbox.errors import StoreUnavailable
from web import __main__ as web
from web.front import Front
from web.group_commit import GroupCommit

record = GroupCommit.record
later = set[asyncio.Task[None]]()


async def _in_its_own_time(*of: Any) -> None:
    with suppress(StoreUnavailable):
        await record(*of)


async def _answer_first(*of: Any) -> None:
    task = asyncio.create_task(_in_its_own_time(*of))
    later.add(task)
    task.add_done_callback(later.discard)


def application() -> Front:
    """Made in each serving process."""
    if os.environ.get("HOLDFAST_SABOTAGE") == "200 before the record":
        GroupCommit.record = _answer_first  # type: ignore[assignment, method-assign]
    return web.application()


if __name__ == "__main__":
    web.main("tests.sabotaged_receiver:application")
