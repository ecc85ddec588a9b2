"""`make bench`: Holdfast and its peers, alternating round by round on one machine; writes docs/benchmarks.md.

python -m bench [--quick] [--report FOLDER]

The peers must have been installed by bench/peers/install.sh; those that are not are left out.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from bench import report, rounds
from bench.bench import Bench, Measure
from bench.contenders import CONTENDERS, Holdfast
from bench.output import parse_arguments

# The rounds of each measurement, and the seconds, jobs or events of each round; then those of a quick run.
MEASUREMENTS: tuple[tuple[str, Measure, tuple[int, int], tuple[int, int]], ...] = (
    ("acks", rounds.acks, (5, 5), (2, 2)),
    ("steady", rounds.steady, (5, 6), (1, 4)),
    ("end_to_end", rounds.end_to_end, (3, 4), (1, 2)),
    ("drain", rounds.drain, (5, 4000), (1, 2000)),
    ("idle", rounds.idle, (3, 200), (1, 60)),
)


def main() -> int:
    arguments = parse_arguments("bench", quick=False)
    about = report.about(arguments.quick)
    with ExitStack() as stack:
        bench = Bench(stack, CONTENDERS)
        for what, measure, full, quick in MEASUREMENTS:
            bench.run(what, measure, *(quick if arguments.quick else full))
    report.write(bench.rounds, bench.left_out, about, arguments.report)
    return 1 if Holdfast.name in bench.left_out else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all processes it had started are stopped")
