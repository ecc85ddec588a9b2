"""Handlers that tests can hold up, let fail and kill, and functions that kill the process between two steps.

A test names a crash point in HOLDFAST_TEST_DIE, or several separated by semicolons. The first process that reaches it
(recorded by a file in HOLDFAST_TEST_FOLDER) kills itself with SIGKILL.
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
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
from tests.support.crash_points import CrashPoint

FOLDER = Path(os.environ["HOLDFAST_TEST_FOLDER"])
DIE = list(filter(None, os.environ.get("HOLDFAST_TEST_DIE", "").split(";")))


def first_time(name: str) -> bool:
    """True for the first call with this name in all processes of the test."""
    try:
        (FOLDER / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_at(point: str) -> None:
    if point in DIE and first_time(f"died-{point}"):
        os.kill(os.getpid(), signal.SIGKILL)


def _effect(attempt: Attempt, db: Session) -> None:
    """One row per effect, without checking whether one exists, so that a second effect would be seen."""
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
    """Has an effect, and a follow-up job with another effect."""
    _effect(attempt, db)
    die_at("in the handler")
    die_at(f"in {attempt.key}")
    if "follow" in attempt.args:
        return []
    return [FollowUp("follow", "tests.support.handlers.plain", {"follow": 1})]


def slow(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Waits, in its first attempt only, while the file `hold` exists; then has its effect."""
    if first_time("held"):
        while (FOLDER / "hold").exists():
            time.sleep(0.05)
    _effect(attempt, db)
    return []


def stubborn(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Like slow, but ignores the soft time limit, and takes a second to stop."""
    if first_time("held"):
        try:
            while (FOLDER / "hold").exists():
                with suppress(SoftTimeLimitExceeded):
                    time.sleep(0.05)
        finally:
            time.sleep(1)
    _effect(attempt, db)
    return []


def calling(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Calls another service with its idempotency key, then has its effect."""
    requests.post(os.environ["HOLDFAST_TEST_PEER"], headers={"Idempotency-Key": attempt.key}, timeout=2)
    die_at("after the outgoing call, before the commit")
    _effect(attempt, db)
    return []


def renewing(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Renews its lease, as a job does that may take longer than its lease."""
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


def meeting(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Has its effect when as many jobs run at the same time as HOLDFAST_TEST_MEETING says."""
    (FOLDER / f"met-{attempt.event.id}").touch()
    while len(list(FOLDER.glob("met-*"))) < int(os.environ["HOLDFAST_TEST_MEETING"]):
        time.sleep(0.05)
    _effect(attempt, db)
    return []


def held(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Waits, with no transaction open, while the file `hold` exists; then has its effect. Says that it waits."""
    (FOLDER / f"held-{attempt.event.id}").touch()
    while (FOLDER / "hold").exists():
        time.sleep(0.05)
    _effect(attempt, db)
    return []


def single(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Like held, and fails for good outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        raise PermanentError("it runs in a slot")
    return held(attempt, db)


def exclusive(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Fails for good if another job with its ordering key runs at the same time."""
    mark = FOLDER / f"running-{attempt.event.id.partition('-')[0]}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        raise PermanentError("two jobs with one key run at the same time") from None
    time.sleep(0.01)
    mark.unlink()
    _effect(attempt, db)
    return []


def leaking(attempt: Attempt, db: Session) -> list[FollowUp]:
    """A foreign error that quotes personal data."""
    raise ValueError("no such mailbox: ada@example.com")


def deadly(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Kills its process in every attempt."""
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def hungry(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Allocates memory until there is none left, in a process with a memory limit (`ulimit -v`)."""
    _effect(attempt, db)
    allocated = []
    while True:
        allocated.append(bytearray(64_000_000))


def growing(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Leaks 50 MB, and takes long enough to be the only job of its Celery task."""
    _effect(attempt, db)
    LEAKED.append(b"x" * 50_000_000)
    time.sleep(0.3)
    return []


def waiting(attempt: Attempt, db: Session) -> list[FollowUp]:
    """Waits four seconds for another server, then has its effect."""
    time.sleep(4)
    _effect(attempt, db)
    return []


LEAKED: list[bytes] = []
HANDLERS = (
    plain,
    slow,
    stubborn,
    meeting,
    held,
    single,
    exclusive,
    calling,
    renewing,
    failing,
    hopeless,
    leaking,
    deadly,
    hungry,
    growing,
    waiting,
)


def register_handlers() -> None:
    """Route events of type test.<name> to the handler of that name, in this process."""
    for handler in HANDLERS:
        name = f"tests.support.handlers.{handler.__name__}"
        routes.TASKS[name] = routes.Task(  # type: ignore[index]
            f"tests.support.handlers:{handler.__name__}", "payments", main_thread=handler is single
        )
        routes.ROUTES["stripe", f"test.{handler.__name__}"] = name  # type: ignore[index]
        routes.NEWER_TYPES.add(f"test.{handler.__name__}")  # type: ignore[attr-defined]


def die_around_each(points: Iterable[CrashPoint]) -> None:
    for owner, name, before, after in points:
        die_around(owner, name, before, after)


def die_around(owner: Any, name: str, before: str, after: str) -> None:
    """Make the method die before or after its work, if the test names that crash point; "" is no crash point.

    Raises LookupError if the owner has no such method."""
    if not hasattr(owner, name):
        raise LookupError(f"{owner.__name__} has no {name}: has it been renamed? See tests/support/crash_points.py.")
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
