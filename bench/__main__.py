"""`make bench`: Holdfast and its peers, alternating round by round on one machine; writes docs/benchmarks.md.

python -m bench [--quick] [--report FOLDER]

The peers must have been installed by bench/peers/install.sh; those that are not are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench import report, rounds
from bench.contenders import CONTENDERS, INSTALLED, Contender, Holdfast, start_valkey
from bench.load import Figures
from bench.output import parse_arguments

Measure = Callable[[Any, int], Figures]
# The rounds of each measurement, and the seconds, jobs or events of each round; then those of a quick run.
MEASUREMENTS: tuple[tuple[str, Measure, tuple[int, int], tuple[int, int]], ...] = (
    ("acks", rounds.acks, (5, 5), (2, 2)),
    ("steady", rounds.steady, (5, 6), (1, 4)),
    ("end_to_end", rounds.end_to_end, (3, 4), (1, 2)),
    ("drain", rounds.drain, (5, 4000), (1, 2000)),
    ("idle", rounds.idle, (3, 200), (1, 60)),
)


class Bench:
    """All receivers that can run here run at once, until `stack` stops them; only one is under load at a time."""

    def __init__(self, stack: ExitStack) -> None:
        self.contenders: list[Contender] = []
        self.rounds: dict[str, dict[str, list[Figures]]] = {}
        self.left_out: dict[str, str] = {}
        folder = INSTALLED / "run"
        valkey = start_valkey(folder, stack)
        for kind in CONTENDERS:
            contender = kind(valkey, folder)
            try:
                contender.prepare(stack)
                if contender.web:
                    contender.start_receiver(stack)
                self.contenders.append(contender)
            except (OSError, RuntimeError) as error:
                self._leave_out(contender, error)

    def run(self, what: str, measure: Measure, count: int, amount: int) -> None:
        """Contenders alternate within each round, so that other load on the machine affects all of them."""
        for number in range(count):
            for contender in [it for it in self.contenders if what in it.measurements]:
                try:
                    figures = measure(contender, amount)
                except (rounds.Miscounted, TimeoutError, RuntimeError, ExceptionGroup) as error:
                    self._leave_out(contender, error)
                    continue
                self.rounds.setdefault(what, {}).setdefault(contender.name, []).append(figures)
                shown = "  ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
                print(f"{what} {number + 1}/{count:<6} {contender.name:12} {shown}", flush=True)

    def _leave_out(self, contender: Contender, error: Exception) -> None:
        """Remove all results of the contender: a partial comparison would mislead."""
        print(f"{contender.name} is left out: {error}", flush=True)
        self.left_out[contender.name] = " ".join(str(error).replace(str(INSTALLED), "…").split())[:300]
        self.contenders = [it for it in self.contenders if it is not contender]
        for kept in self.rounds.values():
            kept.pop(contender.name, None)


def main() -> int:
    arguments = parse_arguments("bench", quick=False)
    about = report.about(arguments.quick)
    with ExitStack() as stack:
        bench = Bench(stack)
        for what, measure, full, quick in MEASUREMENTS:
            bench.run(what, measure, *(quick if arguments.quick else full))
    report.write(bench.rounds, bench.left_out, about, arguments.report)
    return 1 if Holdfast.name in bench.left_out else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all processes it had started are stopped")
