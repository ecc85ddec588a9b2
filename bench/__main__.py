"""`make bench`: Holdfast and its peers, alternating round by round on one machine; writes docs/benchmarks.md.

python -m bench [--quick] [--report FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report, results, rounds
from bench.backlog import fill_queue, fill_record
from bench.contenders import CONTENDERS, INSTALLED, Contender, Holdfast, Unavailable
from bench.install import install
from bench.processes import ROOT, Part
from dev.stack.servers import Valkey
from dev.stack.signals import end_by_exception

SHARE = 0.7  # of the maximum rate, for the latencies


@dataclass(frozen=True, slots=True)
class Plan:
    """Number of rounds, and the seconds or jobs of each round, per measurement."""

    acks: tuple[int, float]
    steady: tuple[int, float]
    end_to_end: tuple[int, float]
    drain: tuple[int, int]
    idle: tuple[int, int]


FULL = Plan(acks=(5, 5), steady=(5, 6), end_to_end=(3, 4), drain=(5, 4000), idle=(3, 200))
QUICK = Plan(acks=(2, 2), steady=(1, 4), end_to_end=(1, 2), drain=(1, 2000), idle=(1, 60))


class Bench:
    """All receivers run at once, but only one is under load at a time."""

    def __init__(self, plan: Plan, found: results.Results, stack: ExitStack) -> None:
        self.plan, self.found, self.stack = plan, found, stack
        self.webs: dict[Contender, Part] = {}

    def open(self) -> None:
        """Start every receiver that can run here."""
        valkey = Valkey(INSTALLED / "valkey").start()
        self.stack.callback(valkey.kill)
        for kind in CONTENDERS:
            contender = kind(valkey, INSTALLED / "logs")
            self.stack.callback(contender.close)
            try:
                contender.prepare()
                web = contender.start(contender.web(), "web")
                self.stack.callback(web.stop)
                web.wait_for(contender.port)
                self.webs[contender] = web
            except (Unavailable, OSError, RuntimeError) as error:
                self._leave_out(contender, error)

    def measure(self) -> None:
        """Contenders alternate within each round, so that other load on the machine affects all of them."""
        plan = self.plan
        self._each("acks", plan.acks[0], lambda one, web: rounds.acks(one, web, plan.acks[1]))
        self._each("steady", plan.steady[0], lambda one, web: rounds.steady(one, web, SHARE, plan.steady[1]))
        self._each("end_to_end", plan.end_to_end[0], lambda one, web: rounds.end_to_end(one, web, plan.end_to_end[1]))
        ours = next((one for one in self.webs if isinstance(one, Holdfast)), None)
        if ours is not None:
            self._drain(ours)
            for number in range(plan.idle[0]):
                self._keep("idle", f"{number + 1}/{plan.idle[0]}", ours.name, rounds.idle(ours, plan.idle[1]))

    def _each(self, what: str, count: int, measure: Callable[[Contender, Part], Any]) -> None:
        for number in range(count):
            for contender, web in list(self.webs.items()):
                try:
                    self._keep(what, f"{number + 1}/{count}", contender.name, measure(contender, web))
                except (rounds.Miscounted, TimeoutError, RuntimeError, ExceptionGroup) as error:
                    self._leave_out(contender, error)

    def _drain(self, ours: Holdfast) -> None:
        """The same jobs for Holdfast's worker and for two bare Celery workers."""
        count, jobs = self.plan.drain
        bare = ours.worker("bench.bare_app")
        queued = lambda: int(ours.client.llen("payments"))  # noqa: E731
        for number in range(count):
            for name, fill, command, left, effect in (
                (ours.name, fill_record, ours.worker(), ours.unfinished, "nothing"),
                (results.BARE, fill_queue, bare, queued, "nothing"),
                (results.BARE_SQL, fill_queue, bare, queued, "sql"),
            ):
                ours.wipe()
                fill(ours, jobs)
                self._keep("drain", f"{number + 1}/{count}", name, rounds.drain(ours, command, left, effect))

    def _keep(self, what: str, number: str, name: str, figures: Any) -> None:
        getattr(self.found, what).setdefault(name, []).append(figures)
        shown = "  ".join(f"{field} {getattr(figures, field):.4g}" for field in figures.__dataclass_fields__)
        print(f"{what} {number:8} {name:12} {shown}", flush=True)

    def _leave_out(self, contender: Contender, error: Exception) -> None:
        """Remove all results of the contender: a partial comparison would mislead."""
        print(f"{contender.name} is left out: {error}", flush=True)
        self.found.left_out[contender.name] = " ".join(str(error).replace(str(INSTALLED), "…").split())[:300]
        self.webs.pop(contender, None)
        for kept in (self.found.acks, self.found.steady, self.found.end_to_end):
            kept.pop(contender.name, None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="folder of the page")
    arguments = parser.parse_args()
    end_by_exception()
    install()
    for old in ("valkey", "logs"):
        shutil.rmtree(INSTALLED / old, ignore_errors=True)
    found = results.Results(arguments.quick, machine=results.machine(), versions=results.versions())
    with ExitStack() as stack:
        bench = Bench(QUICK if arguments.quick else FULL, found, stack)
        bench.open()
        bench.measure()
    results.save(found, INSTALLED / "results.json")
    report.write(found, arguments.report)
    print(report.tables(found))
    return 1 if Holdfast.name in found.left_out else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all processes it had started are stopped")
