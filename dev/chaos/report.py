"""docs/chaos-report.md: a row for each pair of broker and database that was run, its chart, and the disturbances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dev import plot as charts
from dev.harness.checker import Verdict
from dev.harness.timing import Outage, Recovery, Spread, spread
from dev.harness.traffic import DUPLICATES

PAIRS = [("redis", "sqlite"), ("redis", "postgres"), ("rabbitmq", "sqlite"), ("rabbitmq", "postgres")]
PER_SECOND = 16.0  # deliveries at most: on two cores, more would measure how long a queue is, and not a recovery


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What to run."""

    broker: str
    database: str
    events: int
    kills: int
    seed: int
    only: str = ""  # the one kind of disturbance; empty for all
    receiver: str = "web"  # the modules that are run, for a test of this harness to put others in their place
    worker: str = "workers.app"
    stuck_seconds: int = 60  # without any job done: the longest lease and retry wait are far shorter here

    @property
    def seconds(self) -> float:
        """How long the traffic takes at least."""
        return self.events * (1 + DUPLICATES) / PER_SECOND

    @property
    def pair(self) -> str:
        return f"{self.broker}-{self.database}"


@dataclass(frozen=True, slots=True)
class Result:
    """One run in numbers."""

    config: RunConfig
    when: str  # the day
    machine: str  # cores, and the load of the last minutes
    seconds: int  # of traffic and disturbances
    tries: int  # HTTP requests; more than deliveries, because each is repeated until it is answered 2xx
    acknowledged: int
    verdict: Verdict
    dead: int  # dead letters that are not by design
    repeated_mails: int
    restarts: int
    drained: float  # seconds from the last disturbance or acknowledgement until no job was unfinished
    delay: Spread
    recoveries: tuple[Recovery, ...]


COLUMNS: Mapping[str, Callable[[Result], object]] = {
    "broker + database": lambda run: f"{run.config.broker} + {run.config.database}",
    "acknowledged": lambda run: f"{run.acknowledged} of {run.config.events}",
    "disturbances": lambda run: len(run.recoveries),
    "lost": lambda run: f"**{len(run.verdict.lost)}**",
    "doubled": lambda run: f"**{len(run.verdict.doubled)}**",
    "dead": lambda run: run.dead,
    "flowing again, s": lambda run: spread(one.flowing for one in run.recoveries),
    "caught up, s": lambda run: spread(one.caught_up for one in run.recoveries),
    "ack to effect, s": lambda run: run.delay,
    "traffic, s": lambda run: run.seconds,
    "requests": lambda run: run.tries,
    "last job done after, s": lambda run: run.drained,
    "parts restarted": lambda run: run.restarts,
    "mails repeated": lambda run: run.repeated_mails,
    "seed": lambda run: f"`{run.config.seed}`",
    "day": lambda run: run.when,
    "machine": lambda run: run.machine,
}


def save(result: Result, folder: Path) -> None:
    """Keep it for the reports of later runs of other pairs."""
    (folder / f"{result.config.pair}.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))


def saved(folder: Path) -> list[Result]:
    """The last run of every pair, in the order of PAIRS."""
    paths = (folder / f"{broker}-{database}.json" for broker, database in PAIRS)
    return [msgspec.json.decode(path.read_bytes(), type=Result) for path in paths if path.exists()]


def write(results: Sequence[Result], file: Path) -> None:
    """The whole report, with a chart for each result, which is in the same folder."""
    lines = [
        charts.markdown_table(COLUMNS, map(cells, results)),
        *(f"\n{run.config.pair}: {finding}" for run in results for finding in run.verdict.wrong),
        "\n## By disturbance (all runs above together)\n",
        charts.markdown_table(("disturbance", "times", "held, s", "flowing again, s", "caught up, s"), _kinds(results)),
        *(f"\n## {cells(run)[0]}\n\n![{' and '.join(CURVES)}](chaos-{run.config.pair}.svg)" for run in results),
    ]
    file.write_text((Path(__file__).parent / "head.md").read_text() + "\n".join(lines) + "\n")


def cells(result: Result) -> list[str]:
    """The row of a run in the first table."""
    return [str(cell(result)) for cell in COLUMNS.values()]


def _kinds(results: Iterable[Result]) -> Iterable[Sequence[object]]:
    recoveries = [one for run in results for one in run.recoveries]
    for kind in sorted({one.kind for one in recoveries}):
        same = [one for one in recoveries if one.kind == kind]
        times = ((one.held, one.flowing, one.caught_up) for one in same)
        yield kind, len(same), *map(spread, zip(*times, strict=True))


CURVES = ("acknowledged per second", "effects per second")


def plot(acks_ms: Iterable[float], effects_ms: Iterable[float], outages: Sequence[Outage], title: str) -> str:
    """Both rates over time, with the outages marked; all times are milliseconds since 1970. Returns the SVG text."""
    times = [list(acks_ms), list(effects_ms)]
    begin = min([*times[0], *times[1], *(one.begin_ms for one in outages)], default=0.0)
    end = max([*times[0], *times[1], *(one.end_ms for one in outages)], default=1000.0)
    rates = {name: _per_second(each, begin, end) for name, each in zip(CURVES, times, strict=True)}
    spans = [(f"{it.kind}: {it.victim}", (it.begin_ms - begin) / 1000, (it.end_ms - begin) / 1000) for it in outages]
    return charts.lines(title, rates, ("seconds", ""), dots=False, spans=("disturbances", spans))


def _per_second(times_ms: Sequence[float], begin: float, end: float) -> list[tuple[float, float]]:
    counts = Counter(int((at - begin) / 1000) for at in times_ms)
    return [(second + 0.5, counts[second]) for second in range(int((end - begin) / 1000) + 1)]
