"""/metrics, for Prometheus. All values come from the record, so they are right with any number of processes.

A part that cannot be read is left out, and `holdfast_up` is 0 for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from inbox import queries, statistics
from inbox.errors import StoreUnavailable
from inbox.job import JobState
from inbox.store import Store
from settings import Settings
from tasks.routes import QUEUES
from web.ops.health import loss_window
from web.queries import reconcile_status
from web.receiver.counters import ACK_MS
from web.receiver.sources import Source, delivery_stats

ATTEMPT_MS = (10, 50, 250, 1000, 5000, 30_000, 120_000)  # as in inbox/scripts/common.lua
OUTCOMES = ("succeeded", "failed", "lost", "released", "put off")


def blueprint(settings: Settings, sources: Mapping[str, Source], store: Store, engine: Engine) -> Blueprint:
    """The page for Prometheus."""
    pages = Blueprint("metrics", __name__)
    parts: Mapping[str, Collector] = {
        "counts": Counts(store, settings),
        "queues": Queues(store),
        "sweep": Sweep(store),
        "deliveries": Deliveries(store, sources),
        "attempts": Attempts(store),
        "reconcile": reconcile_status.ReconcileMetrics(engine),
    }

    @pages.get("/metrics")
    def metrics() -> Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(Parts(parts))
        return Response(generate_latest(registry), mimetype="text/plain; version=0.0.4")

    return pages


class Parts(Collector):
    """All that can be read, side by side: a store that does not answer costs the time of one question."""

    def __init__(self, parts: Mapping[str, Collector]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("holdfast_up", "1: these figures could be read, 0: they are left out", labels=("part",))
        with ThreadPoolExecutor(len(self._parts)) as pool:
            for name, found in zip(self._parts, pool.map(_read, self._parts.values()), strict=True):
                up.add_metric((name,), found is not None)
                yield from found or ()
        yield up


def _read(part: Collector) -> list[Metric] | None:
    try:
        return list(part.collect())
    except (StoreUnavailable, SQLAlchemyError):
        return None


class Counts(Collector):
    """The record's own counts, so that the figures are right under any number of processes."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def collect(self) -> Iterable[Metric]:
        used, most = self._store.memory()
        stats = queries.stats(self._store)
        values = stats | {
            "store_bytes": used,
            "store_limit_bytes": most,
            "store_full_seconds": statistics.seconds_until_full(self._store, self._store.now_ms()),
            "replicas_ack": self._settings.replicas_ack,
            "replicas": self._store.replicas() if self._settings.replicas_ack else 0,
        }
        counters = {
            "missed": "Events that never arrived and that a reconcile took in",
            "unhandled": "Events recorded that no handler is routed for",
            "expired": "Leases that ran out: a worker died or stalled",
            "sweeps": "Looks for jobs that are due or orphaned; every worker looks every second",
        }
        gauges = {
            "store_bytes": "Memory the store uses",
            "store_limit_bytes": "Memory it may use, 0 for no limit; at 90 % senders hear 503",
            "store_full_seconds": "Until that, at the last minute's rate; +Inf: none come, or there is no limit",
            "replicas_ack": "Replicas that must confirm an event before its 200",
            "replicas": "Replicas that confirm what is written now; fewer than holdfast_replicas_ack: 503",
        }
        return [
            *(CounterMetricFamily(f"holdfast_{name}", help_, value=values[name]) for name, help_ in counters.items()),
            *(GaugeMetricFamily(f"holdfast_{name}", help_, value=values[name]) for name, help_ in gauges.items()),
            self._jobs(stats),
            InfoMetricFamily(
                "holdfast_loss_window", "What a crash may cost after the 200", {"loses": loss_window(self._settings)}
            ),
        ]

    @staticmethod
    def _jobs(stats: Mapping[str, int]) -> GaugeMetricFamily:
        jobs = GaugeMetricFamily("holdfast_jobs", "Jobs by state; dead ones wait for a person", labels=("state",))
        for state in JobState:
            jobs.add_metric((state,), stats[state])
        return jobs


class Deliveries(Collector):
    """What came from each source, as the record counts it."""

    def __init__(self, store: Store, sources: Mapping[str, Source]) -> None:
        self._store, self._sources = store, sources

    def collect(self) -> Iterable[Metric]:
        by_source, by_secret = ("source",), ("source", "secret")
        accepted = CounterMetricFamily("holdfast_accepted", "Events delivered and recorded", labels=by_source)
        again = CounterMetricFamily("holdfast_duplicates", "Deliveries of events already recorded", labels=by_source)
        refused = CounterMetricFamily("holdfast_rejected", "Deliveries refused", labels=("source", "reason"))
        doubts = GaugeMetricFamily(
            "holdfast_refused_since_verified",
            "Signed, but not to be believed, since the last that was",
            labels=by_source,
        )
        verified = CounterMetricFamily("holdfast_verified", "Deliveries that this secret proved", labels=by_secret)
        last = GaugeMetricFamily("holdfast_verified_last_seconds", "When last, since 1970; 0: never", labels=by_secret)
        counts = queries.deliveries(self._store)
        heard = {name.partition(":")[2] for name in counts if name.startswith("accepted:")}
        for name in sorted(heard.union(self._sources)):  # our own API is a source, too
            accepted.add_metric((name,), counts.get(f"accepted:{name}", 0))
            again.add_metric((name,), counts.get(f"duplicate:{name}", 0))
        for source in delivery_stats(self._sources, counts):
            name = source["name"]
            doubts.add_metric((name,), source["unproven"])
            for reason, number in source["rejected"].items():
                refused.add_metric((name, reason), number)
            for secret in source["secrets"]:
                labels = (name, secret["secret"])
                verified.add_metric(labels, secret["verified"])
                last.add_metric(labels, (secret["last"] or 0) / 1000)
        return [accepted, again, refused, doubts, verified, last, self._acks(counts)]

    @staticmethod
    def _acks(counts: Mapping[str, int]) -> HistogramMetricFamily:
        acks = {name.removeprefix("ack:"): number for name, number in counts.items() if name.startswith("ack:")}
        took = HistogramMetricFamily("holdfast_ack_seconds", "From a delivery's head to its 200")
        took.add_metric((), _buckets(acks, ACK_MS), acks.get("us", 0) / 1_000_000)
        return took


class Queues(Collector):
    """The unfinished jobs of each queue, and those that wait for a worker."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        now = self._store.now_ms()
        return (
            *_ages(
                statistics.unfinished_by_queue(self._store, QUEUES),
                _by_queue("unfinished_jobs", "Jobs that are pending, scheduled or running"),
                _by_queue("oldest_unfinished_seconds", "How long the oldest of them has been due, retries included"),
                now,
            ),
            *_ages(
                statistics.pending_by_queue(self._store, QUEUES),
                _by_queue("pending_jobs", "Jobs that a worker can take now"),
                _by_queue("oldest_pending_seconds", "How long the oldest of them has been due"),
                now,
            ),
        )


def _by_queue(name: str, help_: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"holdfast_{name}", help_, labels=("queue",))


def _ages(
    found: Mapping[str, tuple[int, int | None]], number: GaugeMetricFamily, oldest: GaugeMetricFamily, now: int
) -> Iterable[Metric]:
    """How many by queue, and the seconds since the time (ms) beside that."""
    for queue, (many, since) in found.items():
        number.add_metric((queue,), many)
        oldest.add_metric((queue,), 0 if since is None else max(now - since, 0) / 1000)
    return number, oldest


class Sweep(Collector):
    """Whether workers are at work."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        at = (queries.last_sweep_ms(self._store) or 0) / 1000
        yield GaugeMetricFamily("holdfast_swept_seconds", "When a worker last looked, since 1970; 0: never", value=at)


class Attempts(Collector):
    """How attempts ended and how long they took, by task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        ended = CounterMetricFamily("holdfast_attempts", "Attempts by how they ended", labels=("task", "outcome"))
        took = HistogramMetricFamily("holdfast_attempt_seconds", "From lease to end", labels=("task",))
        for task, counts in _by_task(queries.attempts(self._store)).items():
            for outcome in OUTCOMES:
                ended.add_metric((task, outcome), counts.get(outcome, 0))
            took.add_metric((task,), _buckets(counts, ATTEMPT_MS), counts.get("ms", 0) / 1000)
        return ended, took


def _by_task(counts: Mapping[str, int]) -> Mapping[str, Mapping[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for name, number in sorted(counts.items()):
        task, _, what = name.rpartition(":")
        found[task][what] = number
    return found


def _buckets(counts: Mapping[str, int], bounds_ms: Iterable[int]) -> list[tuple[str, float]]:
    """Prometheus' cumulative ones, in seconds."""
    total, buckets = 0, []
    for bound in bounds_ms:
        total += counts.get(str(bound), 0)
        buckets.append((str(bound / 1000), float(total)))
    return [*buckets, ("+Inf", float(total + counts.get("inf", 0)))]
