"""`make bench`: Holdfast and its peers in turn, round by round, on one machine; then the page docs/benchmarks.md.

python -m bench [--quick] [--report <folder>]; the page again from the last run's results: python -m bench.report
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report, results, rounds
from bench.backlog import bare, bare_sql, holdfast
from bench.contenders import CONTENDERS, Contender, Holdfast, NotHere
from bench.install import install
from bench.latency import idle
from bench.processes import ROOT, Part
from dev.stack.servers import Valkey
from dev.stack.signals import end_by_exception

SHARE = 0.7  # of its most that a receiver is given for the latencies


@dataclass(frozen=True, slots=True)
class Plan:
    """How many rounds of each measurement, and how many seconds or jobs each."""

    acks: tuple[int, float]
    steady: tuple[int, float]
    end_to_end: tuple[int, float]
    drain: tuple[int, int]
    idle: tuple[int, int]


FULL = Plan(acks=(5, 5), steady=(5, 6), end_to_end=(3, 4), drain=(5, 4000), idle=(3, 200))
QUICK = Plan(acks=(2, 2), steady=(1, 4), end_to_end=(1, 2), drain=(1, 2000), idle=(1, 60))


class Bench:
    """All contenders at once, idle but for the one whose turn it is."""

    def __init__(self, plan: Plan, found: results.Results, folder: Path) -> None:
        self.plan, self.found, self.folder = plan, found, folder
        self.webs: dict[Contender, Part] = {}

    def open(self, stack: ExitStack) -> None:
        """Start every receiver that can run here."""
        valkey = Valkey(self.folder / "valkey").start()
        stack.callback(valkey.kill)
        for kind in CONTENDERS:
            contender = kind(valkey, self.folder, self.folder / "logs")
            stack.callback(contender.close)
            try:
                contender.prepare()
                web = contender.start(contender.web(), "web")
                stack.callback(web.stop)
                web.wait_for(contender.port)
                self.webs[contender] = web
            except (NotHere, OSError, RuntimeError) as error:
                self._leave_out(contender, error)

    def measure(self) -> None:
        """Contenders in turn within each round, so that a busy minute of the machine hits all alike."""
        count, seconds = self.plan.acks
        self._each("acks", count, lambda one, web: rounds.acks(one, web, seconds))
        count, seconds = self.plan.steady
        self._each("steady", count, lambda one, web: rounds.steady(one, web, SHARE, seconds))
        count, seconds = self.plan.end_to_end
        self._each("end_to_end", count, lambda one, web: rounds.end_to_end(one, web, seconds))
        ours = next((one for one in self.webs if isinstance(one, Holdfast)), None)
        if ours is not None:
            self._drain(ours)
            self._idle(ours)

    def _each(self, what: str, count: int, measure: Callable[[Contender, Part], Any]) -> None:
        kept: dict[str, list[Any]] = defaultdict(list)
        for number in range(count):
            for contender, web in list(self.webs.items()):
                try:
                    kept[contender.name].append(measure(contender, web))
                    _say(f"{what} {number + 1}/{count}", contender.name, kept[contender.name][-1])
                except (rounds.Miscounted, TimeoutError, RuntimeError, ExceptionGroup) as error:
                    self._leave_out(contender, error)
        setattr(self.found, what, {name: kept[name] for name in (one.name for one in self.webs)})

    def _drain(self, ours: Holdfast) -> None:
        count, jobs = self.plan.drain
        fills = {ours.name: holdfast, results.BARE: bare, results.BARE_SQL: bare_sql}
        self.found.drain = {name: [] for name in fills}
        for number in range(count):
            for name, fill in fills.items():
                ours.wipe()
                self.found.drain[name].append(rounds.drain(ours, *fill(ours, jobs)))
                _say(f"drain {number + 1}/{count}", name, self.found.drain[name][-1])

    def _idle(self, ours: Holdfast) -> None:
        count, events = self.plan.idle
        self.found.idle = {ours.name: []}
        for number in range(count):
            self.found.idle[ours.name].append(idle(ours, events))
            _say(f"idle {number + 1}/{count}", ours.name, self.found.idle[ours.name][-1])

    def _leave_out(self, contender: Contender, error: Exception) -> None:
        """Nothing of it is shown: half a comparison is a guess."""
        print(f"{contender.name} is left out: {error}", flush=True)
        self.found.left_out[contender.name] = " ".join(str(error).replace(str(self.folder), "…").split())[:300]
        self.webs.pop(contender, None)
        for kept in (self.found.acks, self.found.steady, self.found.end_to_end):
            kept.pop(contender.name, None)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="about two minutes")
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="the folder of the page")
    wanted = parser.parse_args()
    end_by_exception()
    folder = ROOT / "var" / "bench"
    install(folder)
    for old in ("valkey", "logs"):
        shutil.rmtree(folder / old, ignore_errors=True)
    found = results.Results(wanted.quick, machine=results.machine(), versions=results.versions())
    with ExitStack() as stack:
        bench = Bench(QUICK if wanted.quick else FULL, found, folder)
        bench.open(stack)
        bench.measure()
    results.save(found, folder / "results.json")
    report.write(found, wanted.report)
    print(report.table(found))
    return 1 if Holdfast.name in found.left_out else 0


def _say(what: str, name: str, figures: Any) -> None:
    shown = "  ".join(f"{field} {getattr(figures, field):.4g}" for field in figures.__dataclass_fields__)
    print(f"{what:16} {name:12} {shown}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; everything it had started is stopped")
