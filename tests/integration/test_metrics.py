"""/metrics, and what dashboards and alert rules make of it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from dev.servers import Valkey
from inbox import figures as figures_of_store
from inbox.event import Event
from inbox.job import Lease, NewJob, job_id
from inbox.retry import Bury, RetryAt
from inbox.store import Store
from settings import load
from tasks.database import upgrade
from tests.conftest import Clock
from tests.senders import STRIPE_SECRET
from tests.stack import ROOT
from web import create_app

MONITORING = ROOT / "deploy" / "monitoring"
TASK = "tasks.payments.payment_failed"


@pytest.fixture
def client(valkey: Valkey, tmp_path: Path) -> FlaskClient:
    database = f"sqlite:///{tmp_path}/x.db"
    upgrade(database)
    environ = {"REDIS_URL": valkey.url, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "DATABASE_URL": database}
    return create_app(load(environ)).test_client()


def figures(client: FlaskClient) -> dict[str, float]:
    """Every sample of the page, by its name and labels."""
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def record(store: Store, name: str) -> str:
    job = NewJob(job_id("stripe", name, "test"), TASK, "payments")
    store.record(Event("stripe", name, "test", b"{}"), [job])
    return job.id


def leased(store: Store, name: str) -> Lease:
    lease = store.lease(record(store, name), "w", 600)
    assert isinstance(lease, Lease)
    return lease


def test_attempts_are_told_by_task_outcome_and_duration(client: FlaskClient, store: Store, clock: Clock) -> None:
    done, again, buried = (leased(store, name) for name in ("evt_1", "evt_2", "evt_3"))
    clock.forward(0.2)
    store.finish(done)
    clock.forward(60)
    store.fail(again, "no", RetryAt(clock() + 10))
    store.fail(buried, "never", Bury("never"))
    told = figures(client)
    assert told[f"holdfast_attempts_total outcome=succeeded task={TASK}"] == 1
    assert told[f"holdfast_attempts_total outcome=failed task={TASK}"] == 2
    assert told[f"holdfast_attempt_seconds_bucket le=0.05 task={TASK}"] == 0
    assert told[f"holdfast_attempt_seconds_bucket le=0.25 task={TASK}"] == 1
    assert told[f"holdfast_attempt_seconds_bucket le=120.0 task={TASK}"] == 3
    assert told[f"holdfast_attempt_seconds_sum task={TASK}"] == pytest.approx(120.6)


def test_what_waits_is_told_by_queue_with_the_age_of_the_oldest(client: FlaskClient, real_store: Store) -> None:
    for name in ("evt_1", "evt_2"):
        record(real_store, name)
    told = figures(client)
    assert (told["holdfast_waiting queue=payments"], told["holdfast_waiting queue=documents"]) == (2, 0)
    assert 0 <= told["holdfast_oldest_seconds queue=payments"] < 60


def test_acknowledgements_are_a_histogram_of_all_processes_together(client: FlaskClient, real_store: Store) -> None:
    for _process in range(2):
        real_store.count({"ack:5": 3, "ack:inf": 1, "ack:us": 2_500_000})
    told = figures(client)
    assert told["holdfast_ack_seconds_bucket le=0.002"] == 0
    assert told["holdfast_ack_seconds_bucket le=0.005"] == 6
    assert (told["holdfast_ack_seconds_count"], told["holdfast_ack_seconds_sum"]) == (8, 5)


NEVER = (math.inf, math.inf)


@pytest.mark.parametrize(
    ("limit", "came", "told"),
    [
        (0, (50, 10), NEVER),
        (100_000_000, (0, 10), NEVER),
        (100_000_000, (50, 61), NEVER),  # none came in the last minute
        (100_000_000, (50, 10), (45, 75)),  # 5 a second of 250 KB, and 77 MB of room
        (100_000_000, (50, 50), (225, 375)),
        (1_500_000, (50, 10), (0, 0)),  # it is too late
    ],
)
def test_a_store_that_fills_up_is_told_in_advance(
    store: Store, clock: Clock, limit: int, came: tuple[int, int], told: tuple[float, float]
) -> None:
    events, seconds = came
    for number in range(events):
        store.record(Event("stripe", f"evt_{number}", "test", b"x" * 250_000), [])
    clock.forward(seconds)
    store.client.config_set("maxmemory", str(limit))
    try:
        assert told[0] <= figures_of_store.seconds_until_full(store, clock()) <= told[1]
    finally:
        store.client.config_set("maxmemory", "0")


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text())
    dashboard = yaml.safe_load((MONITORING / "grafana-dashboard.json").read_text())  # JSON is YAML
    return [
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
    ]


def test_dashboard_and_alert_rules_name_figures_that_are_there(client: FlaskClient, store: Store) -> None:
    store.finish(leased(store, "evt_1"))
    there = {name.split(" ")[0] for name in figures(client)} | {"holdfast_reconcile_failing"}  # after the first look
    named = {name for text in expressions() for name in re.findall(r"\bholdfast_\w+", text)}
    assert len(named) > 15
    assert named - there == set()


def test_operations_names_figures_that_are_there(client: FlaskClient, store: Store) -> None:
    store.finish(leased(store, "evt_1"))
    there = {name.split(" ")[0] for name in figures(client)}
    there |= {name.removesuffix("_bucket") for name in there}
    there |= {"holdfast_reconcile_failing", "holdfast_reconcile_finished_seconds"}  # after the first look
    named = set(re.findall(r"`(holdfast_\w+)", (ROOT / "docs" / "operations.md").read_text()))
    assert named - there == set()
