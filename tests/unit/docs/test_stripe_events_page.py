"""docs/stripe-events.md has a row for every route of Stripe's, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.routes import ROUTES
from tasks.stripe_types import SNAPSHOTS

HANDLED, *_, UNHANDLED = (Path(__file__).parents[3] / "docs/stripe-events.md").read_text().split("\n## ")


def rows(text: str) -> list[list[str]]:
    """The cells of each row of the table, but its head."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_route_has_one_row_that_names_its_task_and_every_row_a_route() -> None:
    said = sorted((event, f"tasks.{names(task)[0]}") for events, task, _ in rows(HANDLED) for event in names(events))
    assert said == sorted((kind, task) for (source, kind), task in ROUTES.items() if source == "stripe")


def test_what_the_page_calls_unhandled_is_of_stripe_and_has_no_route() -> None:
    said = [event for events, _ in rows(UNHANDLED) for event in names(events)]
    assert said
    assert [event for event in said if ("stripe", event) in ROUTES or event not in SNAPSHOTS] == []


def test_every_row_says_something() -> None:
    assert [row for row in rows(HANDLED) + rows(UNHANDLED) if len(row[-1]) < 10] == []
