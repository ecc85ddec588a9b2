"""The chaos run's plan and traffic: pure, and the same for the same seed."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from dev.chaos.plan import kinds, length_seconds, make_plan
from dev.chaos.traffic import DUPLICATES, make_traffic

PAIRS = [("redis", "sqlite"), ("redis", "postgres"), ("rabbitmq", "sqlite"), ("rabbitmq", "postgres")]
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


def test_a_disturbance_begins_when_the_one_before_is_over_and_is_held_as_long_as_its_kind_allows() -> None:
    plan, spans = make_plan(7, 100, "redis", "sqlite"), kinds("redis", "sqlite")
    assert all(one.at + one.hold_seconds < after.at for one, after in itertools.pairwise(plan))
    assert all(spans[one.kind][0] <= one.hold_seconds <= spans[one.kind][1] for one in plan)
    assert length_seconds(plan) > plan[-1].at + plan[-1].hold_seconds


@pytest.mark.parametrize(
    ("broker", "database", "there", "absent"),
    [
        ("redis", "sqlite", {"lock the database"}, {"kill the broker", "cut the database", "kill the database"}),
        ("rabbitmq", "postgres", {"kill the broker", "cut the database", "kill the database"}, {"lock the database"}),
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


def test_an_event_can_be_told_by_its_address_and_its_subject() -> None:
    events = make_traffic(7, 200, NOW).events.values()
    assert len({event.address for event in events}) == len({event.subject for event in events}) == 200


def test_customers_have_several_events_so_that_their_jobs_must_wait_for_one_another() -> None:
    bodies = {one.event_id: json.loads(one.body) for one in make_traffic(7, 200, NOW).deliveries}
    customers = Counter(body["data"]["object"]["customer"] for body in bodies.values())
    assert min(customers.values()) >= 4
