"""Is it alive, is it ready, how is it doing: /livez, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flask import Blueprint, Response, jsonify, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from inbox import look
from inbox.errors import StoreUnavailable
from inbox.store import Store
from settings import Settings
from tasks import broker
from tasks.routes import QUEUES
from web import reconciled
from web.errors import Refused
from web.sources import Source, traffic

# What the server must be set to for each DURABILITY, and what may then be lost.
DURABILITY = {
    "always": ({"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}, "nothing"),
    "everysec": ({"appendonly": "yes", "maxmemory-policy": "noeviction"}, "up to 2 seconds of events in a power cut"),
    "none": ({"maxmemory-policy": "noeviction"}, "every event since the last snapshot, if the store dies"),
}
FAILOVER_LOSES = "; if a replica takes over, also what it had not yet received (see REPLICAS_ACK)"
SWEEP_LATE_MS = 15_000


def blueprint(settings: Settings, sources: Mapping[str, Source], store: Store, engine: Engine) -> Blueprint:
    """The pages for whoever runs this: an orchestrator, a load balancer, Prometheus."""
    pages = Blueprint("health", __name__)

    @pages.get("/livez")
    def livez() -> Response:
        return jsonify(alive=True)

    checks: dict[str, Callable[[], str]] = {
        "store": lambda: _check_store(store, settings),
        "broker": _check_broker,
        "database": lambda: _check_database(engine),
        "sweep": lambda: _check_sweep(store),
    }

    @pages.get("/readyz")
    def readyz() -> tuple[Response, int]:
        """Does the whole stack keep its promise? `?only=store`: can this receiver take events, as a balancer asks.

        With the store alone every event is taken and kept; the other three decide when it is worked on.
        """
        wanted = request.args.get("only", ",".join(checks)).split(",")
        if not set(wanted) <= set(checks):
            raise Refused(f"only takes one or more of {','.join(checks)}")
        answers = {name: _ask(checks[name]) for name in wanted}
        ready = all(answer == "ok" for answer in answers.values())
        return jsonify(ready=ready, checks=answers, loss_window=_loss_window(settings)), 200 if ready else 503

    @pages.get("/metrics")
    def metrics() -> Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Counts(store, settings))
        registry.register(_Deliveries(store, sources))
        registry.register(reconciled.Gauges(engine))
        return Response(generate_latest(registry), mimetype="text/plain; version=0.0.4")

    return pages


def _ask(check: Callable[[], str]) -> str:
    try:
        return check()
    except (StoreUnavailable, SQLAlchemyError) as error:
        return f"cannot be reached ({type(error).__name__})"


def _loss_window(settings: Settings) -> str:
    """What a crash may cost although it was answered 200, in words."""
    return DURABILITY[settings.durability][1] + ("" if settings.replicas_ack else FAILOVER_LOSES)


def _check_store(store: Store, settings: Settings) -> str:
    wanted, _ = DURABILITY[settings.durability]
    found = look.durability(store)
    wrong = [f"{name} is {found[name]}, it takes {value}" for name, value in wanted.items() if found[name] != value]
    if (most := settings.replicas_ack) and (have := store.replicas()) < most:
        wrong.append(f"{have} of {most} replicas confirm what is written: senders hear 503")
    return "; ".join(wrong) or "ok"


def _check_database(engine: Engine) -> str:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM effects WHERE 1 = 0"))
    return "ok"


def _check_broker() -> str:
    return "ok" if broker.room(QUEUES[:1]) else "does not answer; jobs wait until it does"


def _check_sweep(store: Store) -> str:
    """Every worker sweeps every second, so the sweep's heartbeat is theirs."""
    swept = look.swept_ms(store)
    if swept is None:
        return "no worker has ever swept"
    late = store.now_ms() - swept
    return "ok" if late < SWEEP_LATE_MS else f"no worker has swept for {late // 1000} s; jobs wait for one"


class _Counts:
    """The record's own counts, so that the figures are right under any number of processes."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily]:
        used, most = self._store.memory()
        values = look.stats(self._store) | {
            "store_bytes": used,
            "store_limit_bytes": most,
            "replicas_ack": self._settings.replicas_ack,
            "replicas": self._store.replicas() if self._settings.replicas_ack else 0,
        }
        counters = {
            "accepted": "Events delivered and recorded",
            "missed": "Events that never arrived and that a reconcile took in",
            "duplicates": "Deliveries of events already recorded",
            "unhandled": "Events recorded that no handler is routed for",
            "expired": "Leases that ran out: a worker died or stalled",
        }
        gauges = {
            "owed": "Jobs not yet done: ready or leased",
            "leased": "Jobs being worked on",
            "succeeded": "Jobs done",
            "dead": "Jobs that a person must look at",
            "store_bytes": "Memory the store uses",
            "store_limit_bytes": "Memory it may use, 0 for no limit; at 90 % senders hear 503",
            "replicas_ack": "Replicas that must confirm an event before its 200",
            "replicas": "Replicas that confirm what is written now; fewer than holdfast_replicas_ack: 503",
        }
        return [
            *(CounterMetricFamily(f"holdfast_{name}", help_, value=values[name]) for name, help_ in counters.items()),
            *(GaugeMetricFamily(f"holdfast_{name}", help_, value=values[name]) for name, help_ in gauges.items()),
            InfoMetricFamily(
                "holdfast_loss_window", "What a crash may cost after the 200", {"loses": _loss_window(self._settings)}
            ),
        ]


class _Deliveries:
    """What came from each source, as the record counts it."""

    def __init__(self, store: Store, sources: Mapping[str, Source]) -> None:
        self._store, self._sources = store, sources

    def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
        by_secret = ("source", "secret")
        refused = CounterMetricFamily("holdfast_rejected", "Deliveries refused", labels=("source", "reason"))
        verified = CounterMetricFamily("holdfast_verified", "Deliveries that this secret proved", labels=by_secret)
        last = GaugeMetricFamily("holdfast_verified_last_seconds", "When last, since 1970; 0: never", labels=by_secret)
        for source in traffic(self._sources, look.deliveries(self._store)):
            for reason, number in source["rejected"].items():
                refused.add_metric((source["name"], reason), number)
            for secret in source["secrets"]:
                labels = (source["name"], secret["secret"])
                verified.add_metric(labels, secret["verified"])
                last.add_metric(labels, (secret["last"] or 0) / 1000)
        return [refused, verified, last]
