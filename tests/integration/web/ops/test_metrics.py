"""/metrics, and what dashboards and alert rules make of it."""

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
from inbox import queries
from inbox import statistics as inbox_figures
from inbox.event import Event
from inbox.job import Lease, NewJob, job_id
from inbox.retry import DeadLetter, RetryAt
from inbox.store import Store
from settings import load
from tasks.db.migrate import migrate
from tests.conftest import Clock
from tests.support.signed_deliveries import STRIPE_SECRET
from tests.support.stack import ROOT
from web import create_app
from web.receiver.counters import FLUSH_SECONDS, BufferedCounters, rejection_counts

MONITORING = ROOT / "deploy" / "monitoring"
TASK = "tasks.payments.payment_failed"


@pytest.fixture
def client(valkey: Valkey, tmp_path: Path) -> FlaskClient:
    database = f"sqlite:///{tmp_path}/x.db"
    migrate(database)
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
    store.fail(buried, "never", DeadLetter("never"))
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
    assert (told["holdfast_pending_jobs queue=payments"], told["holdfast_pending_jobs queue=documents"]) == (2, 0)
    assert 0 <= told["holdfast_oldest_pending_seconds queue=payments"] < 60


def test_what_is_tried_again_later_is_owed_since_it_was_first_to_be_done(
    client: FlaskClient, real_store: Store, clock: Clock
) -> None:
    clock.ms = real_store.now_ms() - 3_600_000
    store = Store(real_store.client, now_ms=clock)
    trying = leased(store, "evt_1")
    store.fail(trying, "Stripe answered 500", RetryAt(clock() + 6 * 3_600_000))
    planned = NewJob("stripe:evt_2:later", TASK, "fulfilment", delay_seconds=86_400)
    store.record(Event("stripe", "evt_2", "test", b"{}"), [planned])
    told = figures(client)
    assert (told["holdfast_pending_jobs queue=payments"], told["holdfast_unfinished_jobs queue=payments"]) == (0, 1)
    assert 3600 <= told["holdfast_oldest_unfinished_seconds queue=payments"] < 3700
    assert (
        told["holdfast_unfinished_jobs queue=fulfilment"],
        told["holdfast_oldest_unfinished_seconds queue=fulfilment"],
    ) == (1, 0)


def test_what_is_done_dead_or_replayed_is_owed_no_longer_or_again(store: Store, clock: Clock) -> None:
    began = clock()
    done, died = leased(store, "evt_1"), leased(store, "evt_2")
    store.finish(done)
    store.fail(died, "never", DeadLetter("never"))
    assert inbox_figures.unfinished_by_queue(store, ("payments",)) == {"payments": (0, None)}
    clock.forward(60)
    store.replay(died.job_id, "ada")
    assert inbox_figures.unfinished_by_queue(store, ("payments",)) == {"payments": (1, began + 60_000)}


def test_while_the_store_is_away_the_page_says_which_figures_are_left_out(client: FlaskClient, valkey: Valkey) -> None:
    valkey.kill()
    answer, told = client.get("/metrics"), figures(client)
    assert answer.status_code == 200
    assert told == {
        f"holdfast_up part={part}": float(part == "reconcile")
        for part in ("counts", "queues", "sweep", "deliveries", "attempts", "reconcile")
    }


def test_a_part_that_cannot_be_read_costs_no_other(client: FlaskClient, real_store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database")
    real_store.client.set("{holdfast}:attempts", "no hash")
    told = figures(client)
    assert {name for name, value in told.items() if name.startswith("holdfast_up") and not value} == {
        "holdfast_up part=attempts",
        "holdfast_up part=reconcile",
    }
    assert told["holdfast_jobs state=dead"] == 0


def test_deliveries_are_told_by_source_and_duplicates_apart(client: FlaskClient, real_store: Store) -> None:
    for source, name in (("stripe", "evt_1"), ("stripe", "evt_1"), ("stripe", "evt_2"), ("api", "doc_1")):
        real_store.record(Event(source, name, "test", b"{}"), [])
    real_store.record(Event("stripe", "evt_3", "test", b"{}"), [], counted="missed")
    told = figures(client)
    assert told["holdfast_accepted_total source=stripe"] == 2
    assert told["holdfast_accepted_total source=api"] == 1
    assert told["holdfast_duplicates_total source=stripe"] == 1


def test_a_delivery_that_is_believed_ends_the_doubts_about_its_sender(client: FlaskClient, real_store: Store) -> None:
    for reason in ("signature", "timestamp", "mode", "unsigned", "body"):
        real_store.count(rejection_counts("stripe", reason))
    assert figures(client)["holdfast_refused_since_verified source=stripe"] == 3
    real_store.record(Event("stripe", "evt_1", "test", b"{}"), [], "a1b2c3d4")
    told = figures(client)
    assert told["holdfast_refused_since_verified source=stripe"] == 0
    assert told["holdfast_rejected_total reason=signature source=stripe"] == 1


def test_503s_are_told_when_the_store_is_back(valkey: Valkey, real_store: Store) -> None:
    """What a process could not write down it keeps until it can."""

    async def outage() -> None:
        tally = BufferedCounters(real_store)
        valkey.kill()
        for _ in range(3):
            tally.count_rejection("stripe", "unavailable")
        await asyncio.sleep(1.5 * FLUSH_SECONDS)
        valkey.start()
        await asyncio.sleep(3 * FLUSH_SECONDS)

    asyncio.run(outage())
    assert queries.deliveries(real_store)["rejected:stripe:unavailable"] == 3


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
        store.record(Event("stripe", f"evt_{number}", "test", os.urandom(250_000)), [])  # or it is kept small
    clock.forward(seconds)
    store.client.config_set("maxmemory", str(limit))
    try:
        assert told[0] <= inbox_figures.seconds_until_full(store, clock()) <= told[1]
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


def test_no_figure_of_the_whole_is_added_up_over_receivers() -> None:
    """Each of several receivers that Prometheus asks tells the same: their sum would be that many times too much."""
    for text in expressions():
        assert not re.search(r"\bsum\b(?: by \([^)]*\))? *\((?!max by)", text), text
        assert "increase(" not in text or "max" in text, text


def test_every_way_of_not_answering_is_an_alert() -> None:
    rules = yaml.safe_load((MONITORING / "prometheus-rules.yml").read_text())["groups"][0]["rules"]
    text = " ".join(rule["expr"] for rule in rules)
    for sign in ('up{job="holdfast"} == 0', "absent(holdfast_up)", "absent(holdfast_swept_seconds)", "(holdfast_up{"):
        assert sign in text


def test_operations_names_figures_that_are_there(client: FlaskClient, store: Store) -> None:
    store.finish(leased(store, "evt_1"))
    there = {name.split(" ")[0] for name in figures(client)}
    there |= {name.removesuffix("_bucket") for name in there}
    there |= {"holdfast_reconcile_failing", "holdfast_reconcile_finished_seconds"}  # after the first look
    named = set(re.findall(r"`(holdfast_\w+)", (ROOT / "docs" / "operations.md").read_text()))
    assert named - there == set()
