"""The chaos run's plan and traffic: pure, and the same for the same seed."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from dev.chaos.plan import kinds, length_seconds, make_plan, victims
from dev.chaos.report import PAIRS
from dev.harness.checker import EXPECTED
from dev.harness.sender import DOCUMENT_REQUESTED
from dev.harness.traffic import DUPLICATES, KINDS, make_traffic

NOW = 1_800_000_000


@pytest.mark.parametrize(("broker", "database"), PAIRS)
def test_the_same_seed_gives_the_same_plan_and_another_seed_another(broker: str, database: str) -> None:
    plan = make_plan(7, 40, broker, database)
    assert plan == make_plan(7, 40, broker, database)
    assert plan != make_plan(8, 40, broker, database)


@pytest.mark.parametrize(("broker", "database"), PAIRS)
def test_every_kind_of_disturbance_comes_as_often_as_the_others(broker: str, database: str) -> None:
    spans = kinds(broker, database)
    times = Counter(one.kind for one in make_plan(7, 2 * len(spans), broker, database))
    assert times == dict.fromkeys(spans, 2)


@pytest.mark.parametrize(("broker", "database"), PAIRS)
def test_a_disturbance_begins_when_those_before_are_over_or_with_the_last_of_them(broker: str, database: str) -> None:
    plan, spans = make_plan(7, 100, broker, database), kinds(broker, database)
    assert all(spans[one.kind][0] <= one.hold_seconds <= spans[one.kind][1] for one in plan)
    for before, one in itertools.pairwise(plan):
        if one.together:
            assert before.at <= one.at <= before.over
            assert not victims(before.kind) & victims(one.kind)
        else:
            assert max(each.over for each in plan[: plan.index(one)]) < one.at
    assert 20 < sum(one.together for one in plan) < 34
    assert length_seconds(plan) > max(one.over for one in plan)


def test_a_longer_plan_has_the_same_disturbances_with_longer_pauses() -> None:
    short, long = make_plan(7, 30, "redis", "sqlite"), make_plan(7, 30, "redis", "sqlite", seconds=900)
    assert 850 < length_seconds(long) <= 901
    assert make_plan(7, 30, "redis", "sqlite", seconds=9) == short
    for (before, one), (after, later) in zip(itertools.pairwise(short), itertools.pairwise(long), strict=True):
        assert (one.kind, one.hold_seconds, one.choice, one.together) == (
            *(later.kind, later.hold_seconds, later.choice, later.together),
        )
        apart, now = one.at - before.at, later.at - after.at
        assert now == pytest.approx(apart, abs=0.02) if one.together else now > apart + 20


def test_a_plan_of_one_kind_has_no_other() -> None:
    assert {one.kind for one in make_plan(7, 9, "redis", "sqlite", only="kill the store")} == {"kill the store"}


@pytest.mark.parametrize(
    ("broker", "database", "there", "absent"),
    [
        ("redis", "sqlite", {"lock the database"}, {"kill the broker", "fill the broker", "freeze the database"}),
        ("rabbitmq", "postgres", {"kill the broker", "fill the broker", "freeze the database"}, {"lock the database"}),
    ],
)
def test_only_what_is_there_is_broken(broker: str, database: str, there: set[str], absent: set[str]) -> None:
    assert there <= kinds(broker, database).keys()
    assert not absent & kinds(broker, database).keys()


def test_the_same_seed_sends_the_same_events_in_the_same_order() -> None:
    assert make_traffic(7, 200, NOW) == make_traffic(7, 200, NOW)
    assert make_traffic(7, 200, NOW).deliveries != make_traffic(8, 200, NOW).deliveries


def test_every_event_is_sent_and_a_tenth_of_them_twice_and_out_of_order() -> None:
    traffic = make_traffic(7, 200, NOW)
    times = Counter(delivery.event_id for delivery in traffic.deliveries)
    assert times.keys() == traffic.events.keys()
    assert Counter(times.values()) == {1: 200 - 200 * DUPLICATES, 2: 200 * DUPLICATES}
    in_order = list(traffic.events)
    assert list(times) != in_order


def test_no_two_events_have_the_same_address_or_subject() -> None:
    events = make_traffic(7, 200, NOW).events.values()
    assert len({event.address for event in events}) == len({event.subject for event in events}) == 200


def test_customers_have_several_events_so_that_their_jobs_must_wait_for_one_another() -> None:
    customers = Counter(event.customer for event in make_traffic(7, 200, NOW).events.values())
    shared = [times for customer, times in customers.items() if customer.startswith("cus_Chaos")]
    assert min(shared) >= 2
    assert sum(shared) > 100


@pytest.mark.parametrize(("broker", "database"), PAIRS)
def test_the_services_that_the_product_calls_are_broken_too(broker: str, database: str) -> None:
    services = {"break the mail service", "break the document service", "break Stripe"}
    every = kinds(broker, database)
    assert services <= {one.kind for one in make_plan(7, len(every), broker, database)}


def test_every_kind_of_event_is_sent_and_the_checker_knows_its_effects() -> None:
    drawn = Counter(event.kind for event in make_traffic(7, 1000, NOW).events.values())
    assert drawn.keys() == KINDS.keys() <= EXPECTED.keys()
    assert sum(KINDS.values()) == 100
    assert all(abs(drawn[kind] - 10 * percent) < 50 for kind, percent in KINDS.items())


def test_a_document_is_requested_under_its_own_name_and_called_back_in_every_way() -> None:
    traffic = make_traffic(7, 1000, NOW)
    requests = {one.event_id: json.loads(one.body) for one in traffic.deliveries if one.type == DOCUMENT_REQUESTED}
    documents = {event.id for event in traffic.events.values() if "document" in event.kind}
    assert requests.keys() == documents == {body["document_id"] for body in requests.values()}
    assert {name.partition("document-")[0] for name in documents} == {"", "twice-", "late-", "early-", "fails-"}


def test_some_failed_invoices_have_no_address_and_their_own_customer() -> None:
    traffic = make_traffic(7, 1000, NOW)
    bodies = {one.event_id: json.loads(one.body) for one in traffic.deliveries if one.type != DOCUMENT_REQUESTED}
    invoices = {name: body["data"]["object"] for name, body in bodies.items() if "failed" in traffic.events[name].kind}
    without = {name for name, invoice in invoices.items() if invoice["customer_email"] is None}
    assert 50 < len(without) < 150
    assert len({invoices[name]["customer"] for name in without}) == len(without)
    assert all(invoice["customer"] == traffic.events[name].customer for name, invoice in invoices.items())
