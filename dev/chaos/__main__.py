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
    options = _arguments()
    end_by_exception()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    pairs = report.PAIRS if options.pairs == "all" else [(options.broker, options.database)]
    names = ("events", "kills", "only", "receiver", "worker", "stuck_seconds")
    how = {name: getattr(options, name) for name in names} | {"seed": seed}
    configs = [report.RunConfig(broker, database, **how) for broker, database in pairs]
    good = [_run_one(config, options.data, options.report) for config in configs]  # all of them, even after a bad one
    return 0 if all(good) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.chaos")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, help="repeat the plan of an earlier run")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--pairs", choices=["one", "all"], default="one")
    parser.add_argument("--only", default="", help="the only kind of disturbance, by its name in the report")
    parser.add_argument("--receiver", default="web", help="module to run as the receiver")
    parser.add_argument("--worker", default="workers.app", help="Celery app of the workers")
    parser.add_argument("--stuck-seconds", type=int, default=60, help="stop after so long without a finished job")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "var" / "chaos", help="data, logs and results")
    parser.add_argument("--report", type=Path, default=REPOSITORY / "docs", help="the folder of the report")
    options = parser.parse_args()
    if (options.broker == "rabbitmq" or options.pairs == "all") and "rabbitmq" not in BROKERS:
        parser.error("RabbitMQ is not installed here: install rabbitmq-server, or choose BROKER=redis")
    return options


def _run_one(config: report.RunConfig, data: Path, folder: Path) -> bool:
    """Returns whether nothing was lost, doubled or wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    result = run(config, data / config.pair, folder)
    report.save(result, data)
    report.write(report.saved(data), folder / "chaos-report.md")
    for name, cell in zip(report.COLUMNS, report.cells(result), strict=True):
        print(f"{name:>22}: {cell.strip('*`')}")
    print(f"`SEED={config.seed} make chaos` repeats the plan. Times are p50 / p99 / maximum.")
    print(f"Logs: {data / config.pair / 'logs'}")
    result.verdict.print()
    return result.verdict.good


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; everything that was started is stopped")
