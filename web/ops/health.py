"""Liveness and readiness: /livez, /readyz."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from inbox import queries
from inbox.errors import StoreUnavailable
from inbox.memory_guard import is_nearly_full
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.routes import QUEUES
from web.errors import HttpError

# What the server must be set to for each DURABILITY, and what may then be lost.
NEVER_EVICTS = {"maxmemory-policy": "noeviction"}
APPENDS = {**NEVER_EVICTS, "appendonly": "yes"}
SYNCS = {**APPENDS, "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
DURABILITY = {
    "always": (SYNCS, "nothing"),
    "everysec": (APPENDS, "up to 2 seconds of events in a power cut"),
    "none": (NEVER_EVICTS, "every event since the last snapshot, if the store dies"),
}
UNKNOWN = "not said by the store, which refuses CONFIG"
FAILOVER_LOSES = "; if a replica takes over, also what it had not yet received (see REPLICAS_ACK)"
SWEEP_LATE_MS = 15_000
CHECK_TIMEOUT_SECONDS = 2


def blueprint(settings: Settings, store: Store, engine: Engine) -> Blueprint:
    """For an orchestrator and a load balancer."""
    pages = Blueprint("health", __name__)

    @pages.get("/livez")
    def livez() -> Response:
        return jsonify(alive=True)

    checks: dict[str, Callable[[], str]] = {
        "store": lambda: check_store(store, settings),
        "broker": check_broker,
        "database": TimedCheck(lambda: check_database(engine)),
        "sweep": lambda: check_sweep(store),
    }

    @pages.get("/readyz")
    def readyz() -> tuple[Response, int]:
        """Whether the whole stack works. `?only=store`, for a load balancer: whether this receiver can accept events.

        The store suffices to accept and keep every event; the other checks decide when its jobs run.
        """
        wanted = request.args.get("only", ",".join(checks)).split(",")
        if not set(wanted) <= set(checks):
            raise HttpError(f"only takes one or more of {','.join(checks)}")
        answers = {name: run_check(checks[name]) for name in wanted}
        ready = all(answer == "ok" for answer in answers.values())
        return jsonify(ready=ready, checks=answers, loss_window=loss_window(settings)), 200 if ready else 503

    return pages


def run_check(check: Callable[[], str]) -> str:
    """The result of a check: ok, or what is wrong."""
    try:
        return check()
    except (StoreUnavailable, SQLAlchemyError) as error:
        return f"cannot be reached ({type(error).__name__})"


def loss_window(settings: Settings) -> str:
    """What a crash may lose although it was answered 200."""
    return DURABILITY[settings.durability][1] + ("" if settings.replicas_ack else FAILOVER_LOSES)


def check_store(store: Store, settings: Settings) -> str:
    """Whether its settings satisfy DURABILITY and REPLICAS_ACK, and whether it accepts writes."""
    wanted, _ = DURABILITY[settings.durability]
    found = queries.durability(store)
    said = {name: found.get(name, UNKNOWN) for name in wanted}
    wrong = [f"{name} is {said[name]}, it takes {value}" for name, value in wanted.items() if said[name] != value]
    if found["appendonly"] == "yes" and found["aof_last_write_status"] != "ok":
        wrong.append("it could not write to its file (aof_last_write_status)")
    if is_nearly_full(*store.memory()):
        wrong.append("its memory is nearly full: senders hear 503")
    if refusal := store.write_error():
        wrong.append(f"it takes no events ({refusal}): senders hear 503")
    elif (most := settings.replicas_ack) and (have := store.replicas()) < most:
        wrong.append(f"{have} of {most} replicas confirm what is written: senders hear 503")
    return "; ".join(wrong) or "ok"


class TimedCheck:
    """Runs a check that may block in a background thread; reports a timeout after CHECK_TIMEOUT_SECONDS."""

    def __init__(self, check: Callable[[], str]) -> None:
        self._check, self._lock = check, threading.Lock()
        self._running: Future[str] = Future()
        self._running.cancel()

    def __call__(self) -> str:
        with self._lock:
            if self._running.done():
                self._running = Future()
                threading.Thread(target=self._run, args=(self._running,), daemon=True).start()
            running = self._running
        try:
            return running.result(CHECK_TIMEOUT_SECONDS)
        except TimeoutError:
            return f"does not answer within {CHECK_TIMEOUT_SECONDS} s"

    def _run(self, running: Future[str]) -> None:
        try:
            running.set_result(self._check())
        except Exception as error:
            running.set_exception(error)


def check_database(engine: Engine) -> str:
    """Whether the database responds and has its tables."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM effects WHERE 1 = 0"))
    return "ok"


def check_broker() -> str:
    """Whether the broker accepts messages."""
    return "ok" if broker.doorbell_capacity(QUEUES[:1]) else "does not answer; jobs wait until it does"


def check_sweep(store: Store) -> str:
    """Every worker sweeps every second, so the time of the last sweep shows whether any worker runs."""
    swept = queries.last_sweep_ms(store)
    if swept is None:
        return "no worker has ever swept"
    late = store.now_ms() - swept
    if late < -SWEEP_LATE_MS:
        return "no worker has swept since the store's clock went back; jobs wait for one"
    return "ok" if late < SWEEP_LATE_MS else f"no worker has swept for {late // 1000} s; jobs wait for one"
