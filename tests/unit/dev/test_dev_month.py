"""The month's check finds whatever is missing, doubled or different in a story."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from cli.stripe_events import OLD_VERSION
from dev.demo.story_checks import STORIES, Ending, Story, judge, read_retries


def as_planned(name: str) -> Ending:
    return STORIES[name].ending


@pytest.mark.parametrize("name", STORIES)
def test_a_story_that_ended_as_it_must_has_no_findings(name: str) -> None:
    assert judge(name, as_planned(name)) == []


def test_one_story_is_told_in_the_old_version_of_stripes_api() -> None:
    assert [name for name, plot in STORIES.items() if plot.version == OLD_VERSION] == ["refunded"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("recovers", {"status": "past_due"}),
        ("recovers", {"retries": ("declined",)}),
        ("recovers", {"retries": ("paid",)}),
        ("recovers", {"mails": ("payment_failed", "payment_recovered", "payment_recovered", "receipt")}),
        ("recovers", {"access": False}),
        ("gives-up", {"status": "past_due"}),
        ("gives-up", {"access": True}),
        ("gives-up", {"mails": ("payment_failed", "receipt", "subscription_suspended")}),
        ("gives-up", {"webhooks": ("order.fulfilled", "access.granted")}),
        ("refunded", {"access": True}),
        ("refunded", {"webhooks": ("order.fulfilled", "access.granted", "access.revoked: disputed")}),
        ("renewed", {"access": True}),
        ("recovers", {"receipt": "Ihre Bestellung: 49.00 EUR"}),
        ("gives-up", {"receipt": "Your order: 49.00 EUR"}),
        ("missed", {"access": False}),
        ("missed", {"mails": ()}),
        ("disputed", {"mails": ("dispute_opened", "receipt")}),
        ("disputed", {"webhooks": ("order.fulfilled", "access.granted", "access.granted")}),
    ],
)
def test_a_story_that_ended_otherwise_is_found(name: str, change: dict[str, Any]) -> None:
    (finding,) = judge(name, replace(as_planned(name), **change))
    (value,) = change.values()
    assert finding.startswith(f"{name}: ")
    assert finding.endswith(f"is {value}")


@pytest.mark.parametrize(
    ("states", "read"),
    [
        (["declined", "declined", "paid"], ("declined", "paid")),  # how often it is declined does not matter
        (["paid", "declined"], ("paid", "declined")),
        (["declined", "planned"], ("declined",)),
    ],
)
def test_the_outcomes_of_retries_are_read_in_order_and_each_once(states: list[str], read: tuple[str, ...]) -> None:
    with create_engine("sqlite://").connect() as db:
        db.execute(text("CREATE TABLE invoices (id, subscription)"))
        db.execute(text("CREATE TABLE payment_retries (invoice, number, state)"))
        db.execute(text("INSERT INTO invoices VALUES ('in_1', 'sub_1'), ('in_2', 'sub_2')"))
        db.execute(text("INSERT INTO payment_retries VALUES ('in_2', 1, 'stopped')"))
        for number, state in enumerate(states, 1):
            db.execute(text(f"INSERT INTO payment_retries VALUES ('in_1', {number}, '{state}')"))
        assert read_retries(db, Story("ada@example.test", "cus_1", subscription="sub_1")) == read
