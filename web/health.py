"""Is it alive, is it ready: /livez, /readyz."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify, request
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from inbox import look
from inbox.errors import StoreUnavailable
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.routes import QUEUES
from web.errors import Refused

# What the server must be set to for each DURABILITY, and what may then be lost.
DURABILITY = {
    "always": ({"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}, "nothing"),
    "everysec": ({"appendonly": "yes", "maxmemory-policy": "noeviction"}, "up to 2 seconds of events in a power cut"),
    "none": ({"maxmemory-policy": "noeviction"}, "every event since the last snapshot, if the store dies"),
}
FAILOVER_LOSES = "; if a replica takes over, also what it had not yet received (see REPLICAS_ACK)"
SWEEP_LATE_MS = 15_000


def blueprint(settings: Settings, store: Store, engine: Engine) -> Blueprint:
    """The pages for an orchestrator and a load balancer."""
    pages = Blueprint("health", __name__)

    @pages.get("/livez")
    def livez() -> Response:
        return jsonify(alive=True)

    checks: dict[str, Callable[[], str]] = {
        "store": lambda: check_store(store, settings),
        "broker": check_broker,
        "database": lambda: check_database(engine),
        "sweep": lambda: check_sweep(store),
    }

    @pages.get("/readyz")
    def readyz() -> tuple[Response, int]:
        """Does the whole stack keep its promise? `?only=store`: can this receiver take events, as a balancer asks.

        With the store alone every event is taken and kept; the other three decide when it is worked on.
        """
        wanted = request.args.get("only", ",".join(checks)).split(",")
        if not set(wanted) <= set(checks):
            raise Refused(f"only takes one or more of {','.join(checks)}")
        answers = {name: ask(checks[name]) for name in wanted}
        ready = all(answer == "ok" for answer in answers.values())
        return jsonify(ready=ready, checks=answers, loss_window=loss_window(settings)), 200 if ready else 503

    return pages


def ask(check: Callable[[], str]) -> str:
    """What a check found: ok, or what is wrong in words."""
    try:
        return check()
    except (StoreUnavailable, SQLAlchemyError) as error:
        return f"cannot be reached ({type(error).__name__})"


def loss_window(settings: Settings) -> str:
    """What a crash may cost although it was answered 200, in words."""
    return DURABILITY[settings.durability][1] + ("" if settings.replicas_ack else FAILOVER_LOSES)


def check_store(store: Store, settings: Settings) -> str:
    """Is it set as DURABILITY and REPLICAS_ACK want it?"""
    wanted, _ = DURABILITY[settings.durability]
    found = look.durability(store)
    wrong = [f"{name} is {found[name]}, it takes {value}" for name, value in wanted.items() if found[name] != value]
    if (most := settings.replicas_ack) and (have := store.replicas()) < most:
        wrong.append(f"{have} of {most} replicas confirm what is written: senders hear 503")
    return "; ".join(wrong) or "ok"


def check_database(engine: Engine) -> str:
    """Does it answer, and are there tables?"""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM effects WHERE 1 = 0"))
    return "ok"


def check_broker() -> str:
    """Does it take doorbells?"""
    return "ok" if broker.room(QUEUES[:1]) else "does not answer; jobs wait until it does"


def check_sweep(store: Store) -> str:
    """Every worker sweeps every second, so the sweep's heartbeat is theirs."""
    swept = look.swept_ms(store)
    if swept is None:
        return "no worker has ever swept"
    late = store.now_ms() - swept
    return "ok" if late < SWEEP_LATE_MS else f"no worker has swept for {late // 1000} s; jobs wait for one"
