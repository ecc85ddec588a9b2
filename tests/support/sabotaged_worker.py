"""The real worker app without the safeguards named in HOLDFAST_SABOTAGE (`one;another`); the chaos run must detect it.

HOLDFAST_DEATHS is the share of jobs after whose commit the process kills itself; that alone is no sabotage.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from typing import Any

from sqlalchemy.dialects import sqlite

from inbox.store import Store
from tasks.models import Effect
from tasks.notifications import apprise_client, notify
from workers import run
from workers.sweep import Sweeper


def die_before(method: str, share: float) -> None:
    real: Callable[..., Any] = getattr(Store, method)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if random.random() < share:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(Store, method, wrapped)


def ignore_effect_row() -> None:
    write: Any = sqlite.insert(Effect.__table__)  # type: ignore[arg-type]
    run.INSERT_EFFECT = write.on_conflict_do_update(index_elements=["job_id"], set_={"job_id": write.excluded.job_id})
    run.Runner._done = lambda *_: None  # type: ignore[method-assign]


def never_sweep() -> None:
    Sweeper.run = lambda _: None  # type: ignore[assignment, method-assign]


def mail_twice() -> None:
    send = apprise_client.send_message
    assert vars(notify)["send_message"] is send
    vars(notify)["send_message"] = lambda *mail, **more: send(*mail, **more) and send(*mail, **more)


SABOTAGES = {"effect row off": ignore_effect_row, "sweep off": never_sweep, "mails twice": mail_twice}

for finish in ("finish", "finish_and_lease"):
    die_before(finish, float(os.environ.get("HOLDFAST_DEATHS", "0")))
for sabotage in filter(None, os.environ.get("HOLDFAST_SABOTAGE", "").split(";")):
    SABOTAGES.get(sabotage, lambda: None)()  # the receiver has sabotages of its own

from workers.app import app  # noqa: E402, F401  last, because it uses what was patched above
