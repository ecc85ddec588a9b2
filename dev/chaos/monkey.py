"""The chaos monkey: it breaks what the plan lists, at its time, and notes what it broke."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psutil

from dev.chaos.plan import Disturbance
from dev.chaos.system import SystemUnderTest
from dev.harness.timing import Outage
from dev.simulators.http import FAULTS, Simulator
from dev.stack.servers import wait_until
from tasks.routes import QUEUES

DOORBELLS = (*QUEUES, "unacked", "unacked_index")
Action = Callable[[Disturbance], str]  # breaks something for `hold_seconds`, and returns what it was


class Monkey:
    """Breaks the system. A victim that is down, because its restart is not finished, is waited for."""

    def __init__(self, system: SystemUnderTest) -> None:
        self._system, valkey = system, system.valkey
        self._actions: dict[str, Action] = {
            "kill the store": _hold("valkey, back from its append-only file", valkey.kill, valkey.start),
            "freeze the store": _hold("valkey", valkey.freeze, valkey.resume),
            "fill the store": _hold("valkey, noeviction", partial(self._limit, "1mb"), partial(self._limit, "0")),
            "delete the queues": self._delete_queues,
            "break the mail service": partial(self._break, system.mail, "mail service"),
            "break the document service": partial(self._break, system.documents, "document service"),
            "break Stripe": partial(self._break, system.stripe, "Stripe"),
            "lock the database": _hold("sqlite, exclusive lock", system.lock_sqlite, system.unlock_sqlite),
        }
        for part, names in {"receiver": ["receiver"], "worker": system.workers}.items():
            for verb, number in {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP}.items():
                self._actions[f"{verb} a {part}"] = partial(self._signal, names, number)
                self._actions[f"{verb} a {part}'s child"] = partial(self._signal, names, number, child=True)
        if (rabbitmq := system.rabbitmq) and (network := system.broker_network):
            self._actions |= {
                "cut the broker": _hold("all connections, on the client's side only", network.reset_clients, _nothing),
                "silence the broker": _hold("all connections: nothing passes", network.drop, _nothing),
                "kill the broker": _hold("rabbitmq", rabbitmq.kill, rabbitmq.start),
                "freeze the broker": _hold("rabbitmq", rabbitmq.freeze, rabbitmq.resume),
                "fill the broker": _hold("rabbitmq, memory alarm", rabbitmq.run_short_of_memory, rabbitmq.free_memory),
            }
        if (postgres := system.postgres) and (line := system.database_network):
            self._actions |= {
                "silence the database": _hold("all connections: nothing passes", line.drop, _nothing),
                "cut the database": _hold("every connection of postgres", postgres.cut, _nothing),
                "kill the database": _hold("postgres", postgres.kill, postgres.start),
                "demote the database": _hold("postgres, read-only", postgres.refuse_writes, postgres.accept_writes),
                "freeze the database": _hold(
                    "postgres, with the process of every connection", postgres.freeze, postgres.resume
                ),
            }

    def play(self, plan: list[Disturbance], start: float, report: Callable[[Outage], None]) -> None:
        """The whole plan, from `start` (monotonic) on. A disturbance that is late delays the next ones."""
        running = list[Future[None]]()
        with ThreadPoolExecutor(2, "monkey") as pool:
            for one in plan:
                if not one.together:
                    _wait(running)
                time.sleep(max(0.0, start + one.at - time.monotonic()))
                running.append(pool.submit(self._do, one, report))
            _wait(running)

    def _do(self, one: Disturbance, report: Callable[[Outage], None]) -> None:
        begun = time.time() * 1000
        victim = self._actions[one.kind](one)
        report(Outage(one.kind, victim, begun, time.time() * 1000))

    def _signal(self, parts: list[str], number: signal.Signals, one: Disturbance, *, child: bool = False) -> str:
        name, process = self._pick(parts, one.choice, child=child)
        _send(process, number)
        if number == signal.SIGSTOP:
            time.sleep(one.hold_seconds)
            _send(process, signal.SIGCONT)
        return name

    def _pick(self, parts: list[str], choice: int, *, child: bool) -> tuple[str, psutil.Process]:
        part, found = parts[choice % len(parts)], list[psutil.Process]()

        def is_there() -> bool:  # looked up once: a moment later it may be gone
            found[:] = self._system.stack.processes(part)
            return len(found) > child

        wait_until(is_there, seconds=30, what=f"{part} to run")
        if not child:
            return part, found[0]
        return f"a child of {part}", found[1 + choice // len(parts) % (len(found) - 1)]

    def _limit(self, memory: str) -> None:
        self._system.store.config_set("maxmemory", memory)

    def _break(self, service: Simulator, name: str, one: Disturbance) -> str:
        service.fault = fault = FAULTS[one.choice % len(FAULTS)]
        time.sleep(one.hold_seconds)
        service.fault = ""
        return f"{name}: {fault}"

    def _delete_queues(self, one: Disturbance) -> str:
        """The workers are frozen for a moment before, so that there are doorbells to delete."""
        frozen = [process for name in self._system.workers for process in self._system.stack.processes(name)[:1]]
        for process in frozen:
            _send(process, signal.SIGSTOP)
        try:
            time.sleep(one.hold_seconds)
            if self._system.rabbitmq is None:
                return f"{self._system.store.delete(*DOORBELLS)} keys of the broker"
            for queue in QUEUES:
                self._system.rabbitmq.delete_queue(queue)
            return f"{len(QUEUES)} queues"
        finally:
            for process in frozen:
                _send(process, signal.SIGCONT)


def _hold(victim: str, start: Callable[[], object], end: Callable[[], object]) -> Action:
    """Broken from `start` until `end`."""

    def act(one: Disturbance) -> str:
        start()
        time.sleep(one.hold_seconds)
        end()
        return victim

    return act


def _nothing() -> None:
    """For what need not be ended."""


def _wait(running: list[Future[None]]) -> None:
    """Raises the exception of any of them."""
    while running:
        running.pop().result()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):  # it ended by itself, which disturbs no less
        process.send_signal(number)
