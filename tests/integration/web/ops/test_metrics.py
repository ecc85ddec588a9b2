"""/metrics, and the metrics that the dashboard, the alert rules and docs/operations.md use."""

from __future__ import annotations

import asyncio
import math
import os
import re
from pathlib import Path

import pytest
import yaml
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from dev.stack.servers import Valkey
from inbox import queries, statistics
from inbox.event import Event
from inbox.job import Lease, NewJob, job_id
from inbox.retry import DeadLetter, RetryAt
from inbox.store import Store
from settings import load
from tasks.db.migrate import migrate
from tests.conftest import Clock
from tests.support.signed_deliveries import STRIPE_SECRET
from tests.support.stack import ROOT
from web.application import create_app
from web.receiver.counters import FLUSH_SECONDS, BufferedCounters, rejection_counts

MONITORING = ROOT / "deploy" / "monitoring"
TASK = "tasks.payments.payment_failed"


@pytest.fixture
def client(valkey: Valkey, tmp_path: Path) -> FlaskClient:
    database = f"sqlite:///{tmp_path}/x.db"
    migrate(database)
    environ = {"REDIS_URL": valkey.url, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "DATABASE_URL": database}
    return create_app(load(environ)).test_client()


def samples(client: FlaskClient) -> dict[str, float]:
    """Every sample of /metrics, by its name and labels."""
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


def test_attempts_are_counted_by_task_outcome_and_duration(client: FlaskClient, store: Store, clock: Clock) -> None:
    succeeded, retried, dead = (leased(store, name) for name in ("evt_1", "evt_2", "evt_3"))
    clock.forward(0.2)
    store.finish(succeeded)
    clock.forward(60)
    store.fail(retried, "no", RetryAt(clock() + 10))
    store.fail(dead, "never", DeadLetter("never"))
    found = samples(client)
    assert found[f"holdfast_attempts_total outcome=succeeded task={TASK}"] == 1
    assert found[f"holdfast_attempts_total outcome=failed task={TASK}"] == 2
    assert found[f"holdfast_attempt_seconds_bucket le=0.05 task={TASK}"] == 0
    assert found[f"holdfast_attempt_seconds_bucket le=0.25 task={TASK}"] == 1
    assert found[f"holdfast_attempt_seconds_bucket le=120.0 task={TASK}"] == 3
    assert found[f"holdfast_attempt_seconds_sum task={TASK}"] == pytest.approx(120.6)


def test_pending_jobs_are_counted_by_queue_with_the_age_of_the_oldest(client: FlaskClient, real_store: Store) -> None:
    for name in ("evt_1", "evt_2"):
        record(real_store, name)
    found = samples(client)
    assert (found["holdfast_pending_jobs queue=payments"], found["holdfast_pending_jobs queue=documents"]) == (2, 0)
    assert 0 <= found["holdfast_oldest_pending_seconds queue=payments"] < 60


def test_a_job_that_is_retried_later_is_unfinished_since_it_was_first_due(
    client: FlaskClient, real_store: Store, clock: Clock
) -> None:
    clock.ms = real_store.now_ms() - 3_600_000
    store = Store(real_store.client, now_ms=clock)
    failing = leased(store, "evt_1")
    store.fail(failing, "Stripe answered 500", RetryAt(clock() + 6 * 3_600_000))
    scheduled = NewJob("stripe:evt_2:later", TASK, "fulfilment", delay_seconds=86_400)
    store.record(Event("stripe", "evt_2", "test", b"{}"), [scheduled])
    found = samples(client)
    assert (found["holdfast_pending_jobs queue=payments"], found["holdfast_unfinished_jobs queue=payments"]) == (0, 1)
    assert 3600 <= found["holdfast_oldest_unfinished_seconds queue=payments"] < 3700
    assert (
        found["holdfast_unfinished_jobs queue=fulfilment"],
        found["holdfast_oldest_unfinished_seconds queue=fulfilment"],
    ) == (1, 0)


def test_finished_and_dead_jobs_are_not_unfinished_but_replayed_ones_are(store: Store, clock: Clock) -> None:
    started_at = clock()
    succeeded, dead = leased(store, "evt_1"), leased(store, "evt_2")
    store.finish(succeeded)
    store.fail(dead, "never", DeadLetter("never"))
    assert statistics.unfinished_by_queue(store, ("payments",)) == {"payments": (0, None)}
    clock.forward(60)
    store.replay(dead.job_id, "ada")
    assert statistics.unfinished_by_queue(store, ("payments",)) == {"payments": (1, started_at + 60_000)}


def test_while_the_store_is_unavailable_holdfast_up_names_the_parts_that_are_left_out(
    client: FlaskClient, valkey: Valkey
) -> None:
    valkey.kill()
    response, found = client.get("/metrics"), samples(client)
    assert response.status_code == 200
    assert found == {
        f"holdfast_up part={part}": float(part == "reconcile")
        for part in ("counts", "queues", "sweep", "deliveries", "attempts", "reconcile")
    }


def test_a_part_that_cannot_be_read_does_not_affect_the_others(
    client: FlaskClient, real_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "x.db").write_bytes(b"no database")
    real_store.client.set("{holdfast}:attempts", "no hash")
    found = samples(client)
    assert {name for name, value in found.items() if name.startswith("holdfast_up") and not value} == {
        "holdfast_up part=attempts",
        "holdfast_up part=reconcile",
    }
    assert found["holdfast_jobs state=dead"] == 0


def test_deliveries_are_counted_by_source_and_duplicates_separately(client: FlaskClient, real_store: Store) -> None:
    for source, name in (("stripe", "evt_1"), ("stripe", "evt_1"), ("stripe", "evt_2"), ("api", "doc_1")):
        real_store.record(Event(source, name, "test", b"{}"), [])
    real_store.record(Event("stripe", "evt_3", "test", b"{}"), [], counted="missed")
    found = samples(client)
    assert found["holdfast_accepted_total source=stripe"] == 2
    assert found["holdfast_accepted_total source=api"] == 1
    assert found["holdfast_duplicates_total source=stripe"] == 1


def test_a_verified_delivery_resets_the_rejections_of_its_source(client: FlaskClient, real_store: Store) -> None:
    for reason in ("signature", "timestamp", "mode", "unsigned", "body"):
        real_store.count(rejection_counts("stripe", reason))
    assert samples(client)["holdfast_rejected_since_verified source=stripe"] == 3
    real_store.record(Event("stripe", "evt_1", "test", b"{}"), [], "a1b2c3d4")
    found = samples(client)
    assert found["holdfast_rejected_since_verified source=stripe"] == 0
    assert found["holdfast_rejected_total reason=signature source=stripe"] == 1


def test_503s_are_counted_when_the_store_is_back(valkey: Valkey, real_store: Store) -> None:
    """A process keeps counts that it could not write until it can."""

    async def outage() -> None:
        counters = BufferedCounters(real_store)
        valkey.kill()
        for _ in range(3):
            counters.count_rejection("stripe", "unavailable")
        await asyncio.sleep(1.5 * FLUSH_SECONDS)
        valkey.start()
        await asyncio.sleep(3 * FLUSH_SECONDS)

    asyncio.run(outage())
    assert queries.delivery_counts(real_store)["rejected:stripe:unavailable"] == 3


def test_acknowledgements_are_a_histogram_of_all_processes_together(client: FlaskClient, real_store: Store) -> None:
    for _process in range(2):
        real_store.count({"ack:5": 3, "ack:inf": 1, "ack:us": 2_500_000})
    found = samples(client)
    assert found["holdfast_ack_seconds_bucket le=0.002"] == 0
    assert found["holdfast_ack_seconds_bucket le=0.005"] == 6
    assert (found["holdfast_ack_seconds_count"], found["holdfast_ack_seconds_sum"]) == (8, 5)


NEVER = (math.inf, math.inf)


@pytest.mark.parametrize(
    ("limit", "recorded", "bounds"),
    [
        (0, (50, 10), NEVER),
        (100_000_000, (0, 10), NEVER),
        (100_000_000, (50, 61), NEVER),  # none were recorded in the last minute
        (100_000_000, (50, 10), (45, 75)),  # 5 a second of 250 KB, and 77 MB left
        (100_000_000, (50, 50), (225, 375)),
        (1_500_000, (50, 10), (0, 0)),  # it is full already
    ],
)
def test_the_time_until_the_store_is_full_is_estimated(
    store: Store, clock: Clock, limit: int, recorded: tuple[int, int], bounds: tuple[float, float]
) -> None:
    events, seconds = recorded
    for number in range(events):
        store.record(
            Event("stripe", f"evt_{number}", "test", os.urandom(250_000)), []
        )  # random, because the store compresses
    clock.forward(seconds)
    store.client.config_set("maxmemory", str(limit))
    try:
        assert bounds[0] <= statistics.seconds_until_full(store, clock()) <= bounds[1]
    finally:
        store.client.config_set("maxmemory", "0")


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text())
    dashboard = yaml.safe_load((MONITORING / "grafana-dashboard.json").read_text())  # JSON is YAML
    return [
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
    ]


def test_dashboard_and_alert_rules_use_existing_metrics(client: FlaskClient, store: Store) -> None:
    store.finish(leased(store, "evt_1"))
    existing = {name.split(" ")[0] for name in samples(client)} | {
        "holdfast_reconcile_failing"
    }  # after the first reconcile
    named = {name for text in expressions() for name in re.findall(r"\bholdfast_\w+", text)}
    assert len(named) > 15
    assert named - existing == set()


def test_no_metric_is_summed_over_receivers() -> None:
    """Each receiver returns the metrics of the whole installation, so a sum would count them several times."""
    for text in expressions():
        assert not re.search(r"\bsum\b(?: by \([^)]*\))? *\((?!max by)", text), text
        assert "increase(" not in text or "max" in text, text


def test_there_is_an_alert_for_every_part_that_may_not_respond() -> None:
    rules = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
    text = " ".join(rule["expr"] for rule in rules)
    for sign in ('up{job="holdfast"} == 0', "absent(holdfast_up)", "absent(holdfast_swept_seconds)", "(holdfast_up{"):
        assert sign in text


def test_operations_names_existing_metrics(client: FlaskClient, store: Store) -> None:
    store.finish(leased(store, "evt_1"))
    existing = {name.split(" ")[0] for name in samples(client)}
    existing |= {name.removesuffix("_bucket") for name in existing}
    existing |= {"holdfast_reconcile_failing", "holdfast_reconcile_finished_seconds"}  # after the first reconcile
    named = set(re.findall(r"`(holdfast_\w+)", (ROOT / "docs" / "operations.md").read_text()))
    assert named - existing == set()
