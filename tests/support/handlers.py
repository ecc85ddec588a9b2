"""Handlers that tests can hold up, fail and kill, and the means to die between two steps.

Where a test wants a death, it names the step in HOLDFAST_TEST_DIE, or several with semicolons; the process that gets
there first (a file in HOLDFAST_TEST_FOLDER tells) kills itself with SIGKILL.
"""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.orm import Session

from inbox.errors import PermanentError, TransientError
from tasks import routes
from tasks.handler import Attempt, FollowUp
from tasks.models import Notification

FOLDER = Path(os.environ["HOLDFAST_TEST_FOLDER"])
DIE = list(filter(None, os.environ.get("HOLDFAST_TEST_DIE", "").split(";")))


def first_time(name: str) -> bool:
    """True once, over all processes."""
    try:
        (FOLDER / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_at(point: str) -> None:
    if point in DIE and first_time(f"died-{point}"):
        os.kill(os.getpid(), signal.SIGKILL)


def _effect(attempt: Attempt, db: Session) -> None:
    """One row an effect; the handler never looks whether it is there, so a second effect would show."""
    note = Notification(
        id=f"{attempt.key}#{os.urandom(4).hex()}",
        kind="test",
        audience="admin",
        params={},
        state="sent",
        created_at=attempt.now,
    )
    db.add(note)
    db.flush()


def plain(attempt: Attempt, db: Session) -> list[FollowUp]:
    """An effect, and a follow-up with an effect of its own."""
    _effect(attempt, db)
    die_at("in the handler")
    die_at(f"in {attempt.key}")
    if "follow" in attempt.args:
        return []
    return [FollowUp("follow", "tests.support.handlers.plain", {"follow": 1})]


def slow(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Waits, once, as long as the file `hold` is there; then has its effect."""
    if first_time("held"):
        while (FOLDER / "hold").exists():
            time.sleep(0.05)
    _effect(attempt, db)
    return []


def stubborn(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Like slow, but takes no notice of being told that its time is over."""
    if first_time("held"):
        while (FOLDER / "hold").exists():
            with suppress(SoftTimeLimitExceeded):
                time.sleep(0.05)
    _effect(attempt, db)
    return []


def calling(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Calls out with its idempotency key, then writes down that it did."""
    requests.post(os.environ["HOLDFAST_TEST_PEER"], headers={"Idempotency-Key": attempt.key}, timeout=2)
    die_at("after the call out, before the commit")
    _effect(attempt, db)
    return []


def renewing(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Takes longer than its lease, and says so in time."""
    attempt.renew()
    _effect(attempt, db)
    return []


def failing(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fails twice, after a change that must be rolled back each time."""
    _effect(attempt, db)
    if attempt.number < 3:
        raise TransientError("the peer is down")
    return []


def hopeless(attempt: Attempt, db: Session) -> list[FollowUp]:
    raise PermanentError("the invoice has no customer")


def leaking(attempt: Attempt, db: Session) -> list[FollowUp]:
    """A foreign error that quotes personal data."""
    raise ValueError("no such mailbox: ada@example.com")


def deadly(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Takes its process with it every time."""
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def hungry(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Takes memory until there is none, in a process that may not have much (`ulimit -v`)."""
    _effect(attempt, db)
    held = []
    while True:
        held.append(bytearray(64_000_000))


def growing(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Keeps 50 MB for ever, and takes as long as to be alone in its Celery task."""
    _effect(attempt, db)
    KEPT.append(b"x" * 50_000_000)
    time.sleep(0.3)
    return []


KEPT: list[bytes] = []
HANDLERS = (plain, slow, stubborn, calling, renewing, failing, hopeless, leaking, deadly, hungry, growing)


def register_handlers() -> None:
    """Route an event of type test.<name> to the handler of that name, in this process."""
    for handler in HANDLERS:
        name = f"tests.support.handlers.{handler.__name__}"
        routes.TASKS[name] = routes.Task(f"tests.support.handlers:{handler.__name__}", "payments")  # type: ignore[index]
        routes.ROUTES["stripe", f"test.{handler.__name__}"] = name  # type: ignore[index]
        routes.NEWER_TYPES.add(f"test.{handler.__name__}")  # type: ignore[attr-defined]


def die_around(owner: Any, name: str, before: str, after: str) -> None:
    """Make the method die before or after its work, if that is what the test names; "" is no point of it."""
    real: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        die_at(before)
        result = real(*args, **kwargs)
        if inspect.isawaitable(result):
            return _die_after(result, after)
        die_at(after)
        return result

    setattr(owner, name, wrapped)


async def _die_after(work: Awaitable[Any], after: str) -> Any:
    result = await work
    die_at(after)
    return result
