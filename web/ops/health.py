"""The checks of /readyz and of `holdfast doctor`. Each returns ok, or what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from inbox import queries, worker_registry
from inbox.errors import StoreUnavailable
from inbox.memory_guard import is_nearly_full
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.db.engine import is_read_only
from tasks.routes import QUEUES

# The settings that each DURABILITY requires of the store, and what may be lost with them.
NEVER_EVICTS = {"maxmemory-policy": "noeviction"}
APPENDS = {**NEVER_EVICTS, "appendonly": "yes"}
SYNCS = {**APPENDS, "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
DURABILITY = {
    "always": (SYNCS, "nothing"),
    "everysec": (APPENDS, "up to 2 seconds of events in a power cut"),
    "none": (NEVER_EVICTS, "every event since the last snapshot, if the store dies"),
}
UNKNOWN = "unknown: the store refuses CONFIG"
FAILOVER_LOSES = "; if a replica takes over, also events it has not yet received (see REPLICAS_ACK)"
SWEEP_LATE_MS = 15_000


def run_check(check: Callable[[], str]) -> str:
    """The result of a check: ok, or what is wrong."""
    try:
        return check()
    except (StoreUnavailable, SQLAlchemyError) as error:
        return f"cannot be reached ({type(error).__name__})"


def loss_window(settings: Settings) -> str:
    """Which acknowledged events a crash may lose."""
    return DURABILITY[settings.durability][1] + ("" if settings.replicas_ack else FAILOVER_LOSES)


def check_store(store: Store, settings: Settings) -> str:
    """Whether its settings satisfy DURABILITY and REPLICAS_ACK, and whether it accepts writes."""
    found = queries.durability(store)
    wrong = _weak_settings(found, settings)
    if found["appendonly"] == "yes" and found["aof_last_write_status"] != "ok":
        wrong.append("it cannot write to its append-only file (aof_last_write_status)")
    if is_nearly_full(*store.memory()):
        wrong.append("its memory is nearly full: sources receive 503")
    if error := store.write_error():
        wrong.append(f"it refuses events ({error}): sources receive 503")
    elif (needed := settings.replicas_ack) and (replicas := store.replicas()) < needed:
        wrong.append(f"only {replicas} of {needed} replicas confirm writes: sources receive 503")
    return "; ".join(wrong) or "ok"


def loss_risk(store: Store, settings: Settings) -> str:
    """With which settings of the store DURABILITY does not hold; empty if it does. Raises StoreUnavailable."""
    if wrong := _weak_settings(queries.durability(store), settings):
        return f"the store may lose acknowledged events: for DURABILITY={settings.durability}, {'; '.join(wrong)}"
    return ""


def _weak_settings(found: Mapping[str, str], settings: Settings) -> list[str]:
    required, _ = DURABILITY[settings.durability]
    actual = {name: found.get(name, UNKNOWN) for name in required}
    return [
        f"{name} must be {value} (it is {actual[name]})" for name, value in required.items() if actual[name] != value
    ]


def check_database(engine: Engine) -> str:
    """Whether the database responds, has its tables and accepts writes: a standby answers every SELECT."""
    try:
        with engine.connect() as connection:
            connection.execute(text("UPDATE effects SET done_at = done_at WHERE 1 = 0"))
    except OperationalError as error:
        if not is_read_only(error):
            raise
        return "is read-only: jobs wait until a server accepts writes"
    return "ok"


def check_broker() -> str:
    """Whether the broker accepts messages."""
    return "ok" if broker.doorbell_capacity(QUEUES[:1]) else "does not answer; jobs wait until it does"


def check_sweep(store: Store) -> str:
    """Whether any worker runs, by the time of the last sweep, which all make every second; and one for each queue."""
    swept_at = queries.last_sweep_ms(store)
    if swept_at is None:
        return "no worker has ever swept"
    age = store.now_ms() - swept_at
    if age < -SWEEP_LATE_MS:
        return "no worker has swept since the store's clock went back; jobs wait for one"
    if age >= SWEEP_LATE_MS:
        return f"no worker has swept for {age // 1000} s; jobs wait for one"
    without = worker_registry.queues_without_worker(store, QUEUES)
    return f"no worker consumes {', '.join(without)}; jobs wait there" if without else "ok"
