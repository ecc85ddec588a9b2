"""The monkey: does what the plan says, when it says so, and writes down what it did to whom."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial

import psutil

from dev.chaos.keeper import Part
from dev.chaos.plan import Disturbance
from dev.chaos.world import QUEUES, World
from dev.harness.timing import Done
from dev.simulators.http import FAULTS, Simulator
from dev.stack.servers import wait_until

DOORBELLS = (*QUEUES, "unacked", "unacked_index")


class Monkey:
    """Breaks a world. A victim that is down already, because its restart is not done, is waited for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._actions: dict[str, Callable[[Disturbance], str]] = {
            "kill a receiver": partial(self._kill, [world.receiver]),
            "freeze a receiver": partial(self._freeze, [world.receiver]),
            "kill a receiver's child": partial(self._kill_child, [world.receiver]),
            "freeze a receiver's child": partial(self._freeze_child, [world.receiver]),
            "kill a worker": partial(self._kill, world.workers),
            "kill a worker's child": partial(self._kill_child, world.workers),
            "freeze a worker": partial(self._freeze, world.workers),
            "freeze a worker's child": partial(self._freeze_child, world.workers),
            "kill the store": self._kill_store,
            "freeze the store": self._freeze_store,
            "fill the store": self._fill_store,
            "delete the queues": self._delete_queues,
            "break the mail service": partial(self._break, world.mail, "mail service"),
            "break the document service": partial(self._break, world.documents, "document service"),
            "break Stripe": partial(self._break, world.stripe, "Stripe"),
            "kill the broker": self._kill_broker,
            "freeze the broker": self._freeze_broker,
            "fill the broker": self._fill_broker,
            "lock the database": self._lock_database,
            "cut the database": self._cut_database,
            "kill the database": self._kill_database,
            "freeze the database": self._freeze_database,
        }

    def play(self, plan: list[Disturbance], begin: float, told: Callable[[Done], None]) -> None:
        """All of it, from `begin` (monotonic) on; `told` hears of each. One that is late delays the next ones."""
        under_way = list[Future[None]]()
        with ThreadPoolExecutor(2, "monkey") as hands:
            for one in plan:
                if not one.together:
                    _wait(under_way)
                time.sleep(max(0.0, begin + one.at - time.monotonic()))
                under_way.append(hands.submit(self._do, one, told))
            _wait(under_way)

    def _do(self, one: Disturbance, told: Callable[[Done], None]) -> None:
        begun = time.time() * 1000
        victim = self._actions[one.kind](one)
        told(Done(one.kind, victim, begun, time.time() * 1000))

    def _kill(self, parts: list[Part], one: Disturbance) -> str:
        part = parts[one.choice % len(parts)]
        part.signal(signal.SIGKILL)
        return part.name

    def _kill_child(self, parts: list[Part], one: Disturbance) -> str:
        part, child = _pick_child(parts, one.choice)
        _send(child, signal.SIGKILL)
        return f"a child of {part.name}"

    def _freeze(self, parts: list[Part], one: Disturbance) -> str:
        part = parts[one.choice % len(parts)]
        part.signal(signal.SIGSTOP)
        time.sleep(one.hold_seconds)
        part.signal(signal.SIGCONT)
        return part.name

    def _freeze_child(self, parts: list[Part], one: Disturbance) -> str:
        part, child = _pick_child(parts, one.choice)
        _send(child, signal.SIGSTOP)
        time.sleep(one.hold_seconds)
        _send(child, signal.SIGCONT)
        return f"a child of {part.name}"

    def _kill_store(self, one: Disturbance) -> str:
        self._world.valkey.kill()
        time.sleep(one.hold_seconds)
        self._world.valkey.start()
        return "valkey, back from its append-only file"

    def _freeze_store(self, one: Disturbance) -> str:
        self._world.valkey.freeze()
        time.sleep(one.hold_seconds)
        self._world.valkey.resume()
        return "valkey"

    def _fill_store(self, one: Disturbance) -> str:
        self._world.store.config_set("maxmemory", "1mb")
        time.sleep(one.hold_seconds)
        self._world.store.config_set("maxmemory", "0")
        return "valkey, noeviction"

    def _delete_queues(self, one: Disturbance) -> str:
        """With the workers asleep for a moment before, so that there are doorbells to be deleted."""
        self._signal_workers(signal.SIGSTOP)
        try:
            time.sleep(one.hold_seconds)
            return self._delete_all_doorbells()
        finally:
            self._signal_workers(signal.SIGCONT)

    def _signal_workers(self, number: signal.Signals) -> None:
        for part in self._world.workers:
            part.signal(number)

    def _delete_all_doorbells(self) -> str:
        rabbitmq = self._world.rabbitmq
        if rabbitmq is None:
            return f"{self._world.store.delete(*DOORBELLS)} keys of the broker"
        return f"{sum(rabbitmq.control('delete_queue', queue) for queue in QUEUES)} queues"

    def _break(self, peer: Simulator, name: str, one: Disturbance) -> str:
        peer.fault = fault = FAULTS[one.choice % len(FAULTS)]
        time.sleep(one.hold_seconds)
        peer.fault = ""
        return f"{name}: {fault}"

    def _kill_broker(self, one: Disturbance) -> str:
        assert self._world.rabbitmq
        self._world.rabbitmq.kill()
        time.sleep(one.hold_seconds)
        self._world.rabbitmq.start()
        return "rabbitmq"

    def _freeze_broker(self, one: Disturbance) -> str:
        assert self._world.rabbitmq
        self._world.rabbitmq.freeze()
        time.sleep(one.hold_seconds)
        self._world.rabbitmq.resume()
        return "rabbitmq"

    def _fill_broker(self, one: Disturbance) -> str:
        """It takes nothing from those who publish, and says so to whoever listens to that."""
        assert self._world.rabbitmq
        with self._world.rabbitmq.short_of_memory():
            time.sleep(one.hold_seconds)
        return "rabbitmq, memory alarm"

    def _lock_database(self, one: Disturbance) -> str:
        with closing(self._world.lock_sqlite()):
            time.sleep(one.hold_seconds)
        return "sqlite, exclusive lock"

    def _cut_database(self, _: Disturbance) -> str:
        assert self._world.postgres
        self._world.postgres.cut()
        return "every connection of postgres"

    def _kill_database(self, one: Disturbance) -> str:
        assert self._world.postgres
        self._world.postgres.kill()
        time.sleep(one.hold_seconds)
        self._world.postgres.start()
        return "postgres"

    def _freeze_database(self, one: Disturbance) -> str:
        assert self._world.postgres
        with self._world.postgres.frozen():
            time.sleep(one.hold_seconds)
        return "postgres, with the process of every connection"


def _wait(under_way: list[Future[None]]) -> None:
    """Raises what one of them raised."""
    while under_way:
        under_way.pop().result()


def _pick_child(parts: list[Part], choice: int) -> tuple[Part, psutil.Process]:
    part, found = parts[choice % len(parts)], list[psutil.Process]()

    def has_children() -> bool:  # asked for once: a moment later they may be gone
        found[:] = part.children()
        return bool(found)

    wait_until(has_children, seconds=30, what=f"{part.name} to have children")
    return part, found[choice // len(parts) % len(found)]


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        """It died by itself meanwhile, which disturbs no less."""
