"""`make bench`: Holdfast and its peers, alternating round by round on one machine; writes docs/benchmarks.md.

python -m bench [--quick] [--report FOLDER]
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack

from bench import report, results, rounds
from bench.backlog import fill_queue, fill_record
from bench.contenders import CONTENDERS, INSTALLED, Contender, Holdfast
from bench.install import install
from bench.output import parse_arguments
from bench.processes import Part
from bench.rounds import Figures
from dev.stack.servers import Valkey

Plan = dict[str, tuple[int, int]]  # by measurement: the rounds, and the seconds, jobs or events of each

FULL: Plan = {"acks": (5, 5), "steady": (5, 6), "end_to_end": (3, 4), "drain": (5, 4000), "idle": (3, 200)}
QUICK: Plan = {"acks": (2, 2), "steady": (1, 4), "end_to_end": (1, 2), "drain": (1, 2000), "idle": (1, 60)}
COMPARED: dict[str, Callable[[Contender, Part, float], Figures]] = {
    "acks": rounds.acks,
    "steady": rounds.steady,
    "end_to_end": rounds.end_to_end,
}


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
                self.webs[contender] = contender.start_web(self.stack)
            except (OSError, RuntimeError) as error:
                self._leave_out(contender, error)

    def measure(self) -> None:
        """Contenders alternate within each round, so that other load on the machine affects all of them."""
        for what, measure in COMPARED.items():
            for number in range(self.plan[what][0]):
                for contender, web in list(self.webs.items()):
                    try:
                        self._keep(what, number, contender.name, measure(contender, web, self.plan[what][1]))
                    except (rounds.Miscounted, TimeoutError, RuntimeError, ExceptionGroup) as error:
                        self._leave_out(contender, error)
        ours = next((one for one in self.webs if isinstance(one, Holdfast)), None)
        if ours is not None:
            self._drain(ours)
            for number in range(self.plan["idle"][0]):
                self._keep("idle", number, ours.name, rounds.idle(ours, self.plan["idle"][1]))

    def _drain(self, ours: Holdfast) -> None:
        """The same jobs for Holdfast's worker and for two bare Celery workers."""
        count, jobs = self.plan["drain"]

        def queued() -> int:
            return int(ours.client.llen("payments"))

        for number in range(count):
            for name, fill, command, left, effect in (
                (ours.name, fill_record, ours.worker, ours.unfinished, "nothing"),
                (results.BARE, fill_queue, ours.bare_worker, queued, "nothing"),
                (results.BARE_SQL, fill_queue, ours.bare_worker, queued, "sql"),
            ):
                ours.wipe()
                fill(ours, jobs)
                self._keep("drain", number, name, rounds.drain(ours, command, left, effect))

    def _keep(self, what: str, number: int, name: str, figures: Figures) -> None:
        self.found.rounds.setdefault(what, {}).setdefault(name, []).append(figures)
        shown = "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
        print(f"{what} {number + 1}/{self.plan[what][0]:<6} {name:12} {shown}", flush=True)

    def _leave_out(self, contender: Contender, error: Exception) -> None:
        """Remove all results of the contender: a partial comparison would mislead."""
        print(f"{contender.name} is left out: {error}", flush=True)
        self.found.left_out[contender.name] = " ".join(str(error).replace(str(INSTALLED), "…").split())[:300]
        self.webs.pop(contender, None)
        for kept in self.found.rounds.values():
            kept.pop(contender.name, None)


def main() -> int:
    arguments = parse_arguments("bench", "quick")
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
