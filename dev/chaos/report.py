"""docs/chaos-report.md: a row for each pair of broker and database that was run, its chart, and the disturbances."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dev.harness.checker import Verdict
from dev.harness.timing import Recovery, Spread, spread

PAIRS = [("redis", "sqlite"), ("redis", "postgres"), ("rabbitmq", "sqlite"), ("rabbitmq", "postgres")]


@dataclass(frozen=True, slots=True)
class Result:
    """One run in numbers."""

    broker: str
    database: str
    seed: int
    when: str  # the day
    machine: str  # cores, and the load of the last minutes
    seconds: int  # of traffic and disturbances
    events: int
    deliveries: int
    tries: int  # HTTP requests; more than deliveries, because each is repeated until it is answered 2xx
    acknowledged: int
    verdict: Verdict
    dead: int  # dead letters that are not by design
    repeated_mails: int
    restarts: int
    drained: float  # seconds from the last disturbance or acknowledgement until no job was unfinished
    delay: Spread
    recoveries: tuple[Recovery, ...]

    @property
    def pair(self) -> str:
        return f"{self.broker}-{self.database}"

    @property
    def flowing(self) -> Spread:
        return spread(one.flowing for one in self.recoveries)

    @property
    def caught_up(self) -> Spread:
        return spread(one.caught_up for one in self.recoveries)


def save(result: Result, folder: Path) -> None:
    """Keep it for the reports of later runs of other pairs."""
    (folder / f"{result.pair}.json").write_text(json.dumps(asdict(result), indent=1))


def saved(folder: Path) -> list[Result]:
    """The last run of every pair, in the order of PAIRS."""
    paths = (folder / f"{broker}-{database}.json" for broker, database in PAIRS)
    return [_load(json.loads(path.read_text())) for path in paths if path.exists()]


def _load(raw: dict[str, Any]) -> Result:
    made = {"delay": Spread(**raw["delay"]), "recoveries": tuple(Recovery(**one) for one in raw["recoveries"])}
    return Result(**{**raw, "verdict": Verdict(**raw["verdict"]), **made})


def write(results: list[Result], file: Path) -> None:
    head = (Path(__file__).parent / "head.md").read_text()
    file.write_text(
        head + "\n".join([*_pairs(results), *_wrong(results), "", *_kinds(results), "", *_pictures(results)])
    )


def row(result: Result) -> str:
    """The row of a pair in the first table."""
    cells = [
        f"{result.broker} + {result.database}",
        f"{result.acknowledged} of {result.events}",
        len(result.recoveries),
        f"**{len(result.verdict.lost)}**",
        f"**{len(result.verdict.doubled)}**",
        result.dead,
        _spread(result.flowing),
        _spread(result.caught_up),
        _spread(result.delay),
        result.seconds,
        result.restarts,
        result.repeated_mails,
        f"`{result.seed}`",
        result.when,
        result.machine,
    ]
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _pairs(results: Iterable[Result]) -> list[str]:
    return [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *map(row, results)]


def _wrong(results: Iterable[Result]) -> list[str]:
    """What else was wrong, of the runs in which anything was."""
    return [f"\n{one.pair}: {finding}" for one in results for finding in one.verdict.wrong]


def _kinds(results: Iterable[Result]) -> list[str]:
    by_kind: dict[str, list[Recovery]] = defaultdict(list)
    for result in results:
        for one in result.recoveries:
            by_kind[one.kind].append(one)
    lines = [
        f"| {kind} | {len(ones)} | {_spread(spread(o.held for o in ones))} | {_spread(spread(o.flowing for o in ones))}"
        f" | {_spread(spread(o.caught_up for o in ones))} |"
        for kind, ones in sorted(by_kind.items())
    ]
    return [KINDS, *lines]


def _pictures(results: Iterable[Result]) -> list[str]:
    return [
        f"## {one.broker} + {one.database}\n\n![acknowledged and effects per second](chaos-{one.pair}.svg)\n"
        for one in results
    ]


def _spread(of: Spread) -> str:
    return f"{of.p50:.1f} / {of.p99:.1f} / {of.most:.1f}"


COLUMNS = (
    *("broker + database", "acknowledged", "disturbances", "lost", "doubled", "dead", "flowing again, s"),
    *("caught up, s", "ack to effect, s", "traffic, s", "parts restarted", "mails repeated", "seed", "day", "machine"),
)
KINDS = """\
## By disturbance (all runs above together)

| disturbance | times | held, s | flowing again, s | caught up, s |
|---|---|---|---|---|"""
