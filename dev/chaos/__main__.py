"""`make chaos`: run it, tell what was found, write the report. Exit code 1 if anything was lost, doubled or given up.

python -m dev.chaos --events 10000 --kills 100 [--seed 7] [--broker redis] [--database sqlite] [--pairs all]
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from dev.chaos import report
from dev.chaos.keeper import ROOT
from dev.chaos.run import Order, run
from dev.harness.timing import Spread
from dev.stack.rabbitmq import BROKERS
from dev.stack.signals import end_by_exception

SHOWN = 20


def main() -> int:
    wanted = _arguments()
    end_by_exception()
    seed = wanted.seed if wanted.seed is not None else random.randrange(1_000_000)
    pairs = report.PAIRS if wanted.pairs == "all" else [(wanted.broker, wanted.database)]
    how = {name: getattr(wanted, name) for name in ("only", "receiver", "worker", "stuck_seconds")}
    orders = [Order(broker, database, wanted.events, wanted.kills, seed, **how) for broker, database in pairs]
    kept = [_one(order, wanted.data, wanted.report) for order in orders]  # all of them, even when one was not
    return 0 if all(kept) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.chaos")
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, help="replays the plan of an earlier run")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--pairs", choices=["one", "all"], default="one")
    parser.add_argument("--only", default="", help="the one kind of disturbance, as the report names it")
    parser.add_argument("--receiver", default="web", help="the module to run as the receiver, if not the product's")
    parser.add_argument("--worker", default="workers.app", help="likewise, the Celery app of the workers")
    parser.add_argument("--stuck-seconds", type=int, default=60, help="wait so long for another job to be done")
    parser.add_argument("--data", type=Path, default=ROOT / "var" / "chaos", help="data, logs and results")
    parser.add_argument("--report", type=Path, default=ROOT / "docs", help="the folder of the report")
    wanted = parser.parse_args()
    if (wanted.broker == "rabbitmq" or wanted.pairs == "all") and "rabbitmq" not in BROKERS:
        parser.error("RabbitMQ is not installed here: install rabbitmq-server, or choose BROKER=redis")
    return wanted


def _one(order: Order, data: Path, folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    result = run(order, data / order.pair, folder)
    report.save(result, data)
    report.write(report.saved(data), folder / "chaos-report.md")
    _tell(result, data / order.pair)
    return result.kept


def _tell(result: report.Result, folder: Path) -> None:
    for what, findings in (("lost", result.lost), ("doubled", result.doubled)):
        for finding in findings[:SHOWN]:
            print(f"  {what}: {finding}")
        if len(findings) > SHOWN:
            print(f"  {what}: and {len(findings) - SHOWN} more")
    print(
        f"{result.pair}: {result.acknowledged} of {result.events} events acknowledged in {result.tries} requests,"
        f" {len(result.recoveries)} disturbances in {result.seconds} s\n"
        f"  lost {len(result.lost)}  doubled {len(result.doubled)}  dead {result.dead}  unfinished {result.unfinished}"
        f"  mails repeated {result.repeated_mails}  drained in {result.drained} s\n"
        f"  p50/p99/max: flowing again {_spread(result.flowing)}, caught up {_spread(result.caught_up)},"
        f" ack to effect {_spread(result.delay)}\n"
        f"  seed {result.seed}  (again: SEED={result.seed} make chaos)  logs: {folder}"
    )


def _spread(of: Spread) -> str:
    return f"{of.p50}/{of.p99}/{of.most} s"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; everything it had started is stopped")
