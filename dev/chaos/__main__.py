"""`make chaos`: run, print what was found, write the report. Exit code 1 if anything was lost, doubled or wrong.

python -m dev.chaos --events 10000 --kills 100 [--seed 7] [--broker redis] [--database sqlite] [--pairs all]
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from dev.chaos import report
from dev.chaos.run import run
from dev.stack.local import REPOSITORY
from dev.stack.rabbitmq import BROKERS
from dev.stack.signals import end_by_exception


def main() -> int:
    """The exit code; every pair is run, even after a bad one."""
    end_by_exception()
    options = _arguments()
    pairs = report.PAIRS if options.pairs == "all" else [(options.broker, options.database)]
    size = {"events": options.events, "kills": options.kills, "seed": options.seed}
    configs = [report.RunConfig(broker, database, **size) for broker, database in pairs]
    return max([run_one(config, options.data, options.report) for config in configs])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.chaos")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    seed = random.randrange(1_000_000)
    parser.add_argument("--seed", type=int, default=seed, help="repeat the plan of an earlier run")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--pairs", choices=["one", "all"], default="one")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "var" / "chaos", help="data, logs and results")
    parser.add_argument("--report", type=Path, default=REPOSITORY / "docs", help="the folder of the report")
    options = parser.parse_args()
    if (options.broker == "rabbitmq" or options.pairs == "all") and "rabbitmq" not in BROKERS:
        parser.error("RabbitMQ is not installed here: install rabbitmq-server, or choose BROKER=redis")
    return options


def run_one(config: report.RunConfig, data: Path, folder: Path) -> int:
    """Returns the exit code, 0 if nothing was lost, doubled or wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    result = run(config, data / config.pair, folder)
    report.save(result, data)
    report.write(report.saved(data), folder / "chaos-report.md")
    for name, cell in zip(report.COLUMNS, report.cells(result), strict=True):
        print(f"{name:>22}: {cell.strip('*`')}")
    print(f"`SEED={config.seed} make chaos` repeats the plan. Times are p50 / p99 / maximum.")
    print(f"Logs: {data / config.pair / 'logs'}")
    result.verdict.print()
    return 0 if result.verdict.good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started is stopped")
