"""The month's verdict would see whatever is missing, doubled or different in a story."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dev.demo.story_checks import STORIES, Found, judge


def as_wanted(name: str) -> Found:
    wanted = STORIES[name]
    return Found(wanted.status, wanted.tries, wanted.access, wanted.mails, wanted.receipt, wanted.heard, lines=[])


@pytest.mark.parametrize("name", STORIES)
def test_a_story_that_ended_as_it_must_has_no_findings(name: str) -> None:
    assert judge(name, as_wanted(name)) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("recovers", {"status": "past_due"}),
        ("recovers", {"tries": ["declined"]}),
        ("recovers", {"tries": ["paid"]}),
        ("recovers", {"mails": ["payment_failed", "payment_recovered", "payment_recovered", "receipt"]}),
        ("recovers", {"access": False}),
        ("gives-up", {"status": "past_due"}),
        ("gives-up", {"access": True}),
        ("gives-up", {"mails": ["payment_failed", "receipt", "subscription_suspended"]}),
        ("gives-up", {"heard": ["order.fulfilled", "access.granted"]}),
        ("refunded", {"access": True}),
        ("refunded", {"heard": ["order.fulfilled", "access.granted", "access.revoked: disputed"]}),
        ("renewed", {"access": True}),
        ("recovers", {"receipt": "Ihre Bestellung: 49.00 EUR"}),
        ("gives-up", {"receipt": "Your order: 49.00 EUR"}),
        ("missed", {"access": False}),
        ("missed", {"mails": []}),
        ("disputed", {"mails": ["dispute_opened", "receipt"]}),
        ("disputed", {"heard": ["order.fulfilled", "access.granted", "access.granted"]}),
    ],
)
def test_a_story_that_ended_otherwise_is_found(name: str, change: dict[str, Any]) -> None:
    (finding,) = judge(name, replace(as_wanted(name), **change))
    (value,) = change.values()
    assert finding.startswith(f"{name}: ")
    assert finding.endswith(f"is {value}")


def test_how_often_a_card_is_declined_before_it_pays_is_of_no_matter() -> None:
    assert judge("recovers", replace(as_wanted("recovers"), tries=["declined", "declined", "paid"])) == []
