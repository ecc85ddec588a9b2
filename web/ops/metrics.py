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
    """The endpoint for Prometheus."""
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
    """Reads all parts in parallel, so that an unavailable store costs the time of one timeout."""

    def __init__(self, parts: Mapping[str, Collector]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily(
            "holdfast_up", "1 if the metrics of this part could be read, 0 if they are left out", labels=("part",)
        )
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
    """Counters and gauges of the record as a whole."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def collect(self) -> Iterable[Metric]:
        used, limit = self._store.memory()
        stats = queries.stats(self._store)
        values = stats | {
            "store_bytes": used,
            "store_limit_bytes": limit,
            "store_full_seconds": statistics.seconds_until_full(self._store, self._store.now_ms()),
            "replicas_ack": self._settings.replicas_ack,
            "replicas": self._store.replicas() if self._settings.replicas_ack else 0,
        }
        counters = {
            "missed": "Events that were never delivered and that a reconcile fetched",
            "unhandled": "Recorded events for which no handler is routed",
            "expired": "Expired leases: a worker died or stalled",
            "unreadable": "Jobs that could not be read or that do not exist; something else writes to the store",
            "sweeps": "Searches for jobs that are due or whose lease has expired; the workers make one a second",
        }
        gauges = {
            "store_bytes": "Memory that the store uses",
            "store_limit_bytes": "Memory that the store may use, 0 if unlimited; at 90 % sources receive 503",
            "store_full_seconds": "Time until 90 % are used at the last minute's rate; +Inf if that is never",
            "replicas_ack": "Replicas that must confirm an event before it is acknowledged",
            "replicas": "Replicas that confirm writes now; if fewer than holdfast_replicas_ack, sources receive 503",
        }
        return [
            *(CounterMetricFamily(f"holdfast_{name}", help_, value=values[name]) for name, help_ in counters.items()),
            *(GaugeMetricFamily(f"holdfast_{name}", help_, value=values[name]) for name, help_ in gauges.items()),
            self._jobs(stats),
            InfoMetricFamily(
                "holdfast_loss_window",
                "Acknowledged events that a crash may lose",
                {"loses": loss_window(self._settings)},
            ),
        ]

    @staticmethod
    def _jobs(stats: Mapping[str, int]) -> GaugeMetricFamily:
        jobs = GaugeMetricFamily("holdfast_jobs", "Jobs by state; dead jobs wait for a person", labels=("state",))
        for state in JobState:
            jobs.add_metric((state,), stats[state])
        return jobs


class Deliveries(Collector):
    """Deliveries by source."""

    def __init__(self, store: Store, sources: Mapping[str, Source]) -> None:
        self._store, self._sources = store, sources

    def collect(self) -> Iterable[Metric]:
        by_source, by_secret = ("source",), ("source", "secret")
        accepted = CounterMetricFamily("holdfast_accepted", "Events delivered and recorded", labels=by_source)
        duplicates = CounterMetricFamily(
            "holdfast_duplicates", "Deliveries of events already recorded", labels=by_source
        )
        rejected = CounterMetricFamily("holdfast_rejected", "Rejected deliveries", labels=("source", "reason"))
        unproven = GaugeMetricFamily(
            "holdfast_rejected_since_verified",
            "Deliveries rejected for signature, timestamp or mode since the last verified one",
            labels=by_source,
        )
        verified = CounterMetricFamily("holdfast_verified", "Deliveries verified by this secret", labels=by_secret)
        last = GaugeMetricFamily(
            "holdfast_verified_last_seconds",
            "Unix time of the last delivery verified by this secret; 0 if none",
            labels=by_secret,
        )
        counts = queries.delivery_counts(self._store)
        counted = {name.partition(":")[2] for name in counts if name.startswith("accepted:")}
        for name in sorted(counted.union(self._sources)):  # the API is a source, too, but not a configured one
            accepted.add_metric((name,), counts.get(f"accepted:{name}", 0))
            duplicates.add_metric((name,), counts.get(f"duplicate:{name}", 0))
        for source in delivery_stats(self._sources, counts):
            name = source["name"]
            unproven.add_metric((name,), source["unproven"])
            for reason, number in source["rejected"].items():
                rejected.add_metric((name, reason), number)
            for secret in source["secrets"]:
                labels = (name, secret["secret"])
                verified.add_metric(labels, secret["verified"])
                last.add_metric(labels, (secret["last"] or 0) / 1000)
        return [accepted, duplicates, rejected, unproven, verified, last, self._acks(counts)]

    @staticmethod
    def _acks(counts: Mapping[str, int]) -> HistogramMetricFamily:
        acks = {name.removeprefix("ack:"): number for name, number in counts.items() if name.startswith("ack:")}
        took = HistogramMetricFamily("holdfast_ack_seconds", "Time from the head of a delivery to its acknowledgement")
        took.add_metric((), _buckets(acks, ACK_MS), acks.get("us", 0) / 1_000_000)
        return took


class Queues(Collector):
    """The unfinished jobs of each queue, and those that wait for a worker."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        now, queues = self._store.now_ms(), statistics.with_unknown_queues(self._store, QUEUES)
        return (
            *_ages(
                statistics.unfinished_by_queue(self._store, queues),
                _by_queue("unfinished_jobs", "Jobs that are pending, scheduled or running"),
                _by_queue(
                    "oldest_unfinished_seconds", "How long the oldest unfinished job has been due, retries included"
                ),
                now,
            ),
            *_ages(
                statistics.pending_by_queue(self._store, queues),
                _by_queue("pending_jobs", "Jobs that wait for a worker"),
                _by_queue("oldest_pending_seconds", "How long the oldest pending job has been due"),
                now,
            ),
        )


def _by_queue(name: str, help_: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"holdfast_{name}", help_, labels=("queue",))


def _ages(
    found: Mapping[str, tuple[int, int | None]], number: GaugeMetricFamily, oldest: GaugeMetricFamily, now: int
) -> Iterable[Metric]:
    """`found`: by queue, the number of jobs and the time (ms) since which the oldest is due."""
    for queue, (count, since) in found.items():
        number.add_metric((queue,), count)
        oldest.add_metric((queue,), 0 if since is None else max(now - since, 0) / 1000)
    return number, oldest


class Sweep(Collector):
    """The time of the last sweep, which shows whether any worker runs."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        at = (queries.last_sweep_ms(self._store) or 0) / 1000
        yield GaugeMetricFamily(
            "holdfast_swept_seconds", "Unix time of the last sweep by a worker; 0 if none", value=at
        )


class Attempts(Collector):
    """Outcomes and durations of attempts, by task."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        ended = CounterMetricFamily(
            "holdfast_attempts", "Finished attempts by task and outcome", labels=("task", "outcome")
        )
        took = HistogramMetricFamily(
            "holdfast_attempt_seconds", "Time from the lease of a job to the end of the attempt", labels=("task",)
        )
        for task, counts in _by_task(queries.attempt_counts(self._store)).items():
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
    """Prometheus' cumulative buckets, in seconds."""
    total, buckets = 0, []
    for bound in bounds_ms:
        total += counts.get(str(bound), 0)
        buckets.append((str(bound / 1000), float(total)))
    return [*buckets, ("+Inf", float(total + counts.get("inf", 0)))]
