"""Redaction, job tree, timeline, search filters, text filters and plots of the console."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from inbox.find import Filter
from settings import PERSONAL
from web.console import jinja_filters, overview, sources
from web.errors import REASONS, HttpError
from web.queries import filters
from web.queries.timeline import build_job_tree, build_timeline
from web.redact import HIDDEN, is_personal, redact_to_text

WORDS = PERSONAL.split(",")


@pytest.mark.parametrize(
    "name",
    [
        *("email", "Email", "customer_email", "customerEmail", "EMAIL-ADDRESS", "name", "phone", "card", "ip"),
        *("billing_address", "hosted_invoice_url", "client_secret", "tax_ids", "shipping_cost"),
    ],
)
def test_a_field_is_personal_if_its_name_contains_one_of_the_words(name: str) -> None:
    assert is_personal(name, WORDS)


@pytest.mark.parametrize("name", ["id", "type", "amount", "shipment", "recipient_id", "curl", "renamed", "", "taxable"])
def test_a_word_within_another_word_does_not_match(name: str) -> None:
    assert not is_personal(name, WORDS)


def test_a_personal_field_is_hidden_with_its_content_at_any_depth() -> None:
    body = {"a": [{"email": "ada@example.com", "address": {"city": "Bonn"}}], "amount": 7, "phone": None}
    assert json.loads(redact_to_text(json.dumps(body).encode(), WORDS)) == {
        "a": [{"email": HIDDEN, "address": HIDDEN}],
        "amount": 7,
        "phone": None,  # null is not personal data
    }


def test_a_field_can_be_hidden_by_its_complete_name() -> None:
    assert is_personal("decline_code", ["decline_code"])
    assert not is_personal("decline", ["decline_code"])


@pytest.mark.parametrize("body", [b"not json ada@example.com", b"\xff", b"[" * 5000])
def test_a_payload_that_is_not_json_is_not_shown(body: bytes) -> None:
    assert redact_to_text(body, WORDS) == f"({len(body)} bytes that are not JSON)"


def test_a_huge_payload_is_truncated() -> None:
    shown_part = redact_to_text(json.dumps({"x": "y" * 300_000}).encode(), WORDS)
    assert len(shown_part) < 201_000
    assert shown_part.endswith("(shortened; the payload has 300009 bytes)")


@pytest.mark.parametrize(
    "text",
    [
        "ada@example.com",
        "Ada <ada.l+x@mail.example.co.uk>, urgent",
        "call +49 30 1234567",
        "0049-30-1234567",
        "+1 (555) 010-9999",
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "4242 4242 4242 4242",
        "card 378282246310005 declined",
    ],
)
def test_values_that_look_personal_are_hidden_in_any_field(text: str) -> None:
    shown = redact_to_text(json.dumps({"note": [text], text: 1}).encode(), ())
    assert shown.count(HIDDEN) == 2
    assert not re.search(r"\d{4}|@|example", shown)


@pytest.mark.parametrize(
    "text",
    [
        "pi_3NirD82eZvKYlo2C0sE9ICJh",
        "2026-11-24T13:00:00+01:00",
        "1795478400000",
        "4242424242424241",
        "US12ABCD34567890",
        "req_1234567890123456",
        "2024-06-20",
        "sha256:4242424242424242aa",
        "10.00 EUR + 19 %",
    ],
)
def test_ids_times_and_numbers_are_shown(text: str) -> None:
    assert json.loads(redact_to_text(json.dumps({"note": text}).encode(), ())) == {"note": text}


def job(effect: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"stripe:e:{effect}",
        "source": "stripe",
        "event": "e",
        "state": "succeeded",
        "attempts": [],
        "due": 0,
        **more,
    }


def names(tree: Any) -> Any:
    return {branch.job["id"][9:]: names(branch.follow_ups) for branch in tree}


def test_jobs_form_a_tree_by_the_follow_ups_of_their_effects() -> None:
    jobs = [job(name) for name in ("a", "b", "c", "d")]
    effects = {"stripe:e:a": '[{"effect": "b"}, {"effect": "gone"}]', "stripe:e:b": '[{"effect": "c"}]'}
    assert names(build_job_tree(jobs, effects)) == {"a": {"b": {"c": {}}}, "d": {}}
    assert names(build_job_tree(jobs, {})) == {"a": {}, "b": {}, "c": {}, "d": {}}
    assert names(build_job_tree(jobs[:1], {"stripe:e:a": '[{"effect": "a"}]'})) == {"a": {}}


def test_the_timeline_shows_arrival_attempts_and_due_times_in_order() -> None:
    tried = [{"started": 20, "ended": 50, "outcome": "failed", "reason": "no"}, {"started": 90}]
    event = {"received": 10, "jobs": [job("b", state="pending", due=200), job("a", attempts=tried)]}
    assert [(moment.at, moment.what, moment.outcome, moment.took) for moment in build_timeline(event)] == [
        (10, "received", "", None),
        (20, "attempt 1", "failed", 30),
        (90, "attempt 2", "running", None),
        (200, "is due", "pending", None),
    ]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, Filter()),
        ({"q": " evt_1 ", "type": "invoice.*", "nonsense": "x"}, Filter(text="evt_1", type="invoice.*")),
        ({"since": "2026-11-24T00:00"}, Filter(since=1_795_478_400_000)),
        ({"until": "2026-11-24T01:00:00+01:00"}, Filter(until=1_795_478_400_000)),
        ({"since": "1795478400000", "state": "dead"}, Filter(since=1_795_478_400_000, state="dead")),
    ],
)
def test_search_parameters_become_a_filter(given: dict[str, str], found: Filter) -> None:
    assert filters.parse_filter(given) == found


@pytest.mark.parametrize("given", [{"state": "odd"}, {"since": "yesterday"}, {"until": "2026-13-01"}, {"since": "²"}])
def test_an_invalid_parameter_is_refused_by_name(given: dict[str, str]) -> None:
    with pytest.raises(HttpError, match=next(iter(given))):
        filters.parse_filter(given)


@pytest.mark.parametrize("cursor", ["stripe:evt_1", ":", "12", "1" * 16 + ":a"])
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(HttpError):
        filters.parse_cursor({"cursor": cursor})


@pytest.mark.parametrize(
    ("ms", "text"), [(None, "–"), (0, "0 s"), (999, "0 s"), (61_000, "1 min 1 s"), (90_061_000, "1 d 1 h")]
)
def test_an_age_is_shown_in_its_two_largest_units(ms: int | None, text: str) -> None:
    assert jinja_filters.age(ms) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (250_000_000, "250 MB"), (5e12, "5000 GB")]
)
def test_a_size_is_shown_in_a_unit_that_keeps_it_short(number: float, text: str) -> None:
    assert jinja_filters.size(number) == text


@pytest.mark.parametrize(("ms", "text"), [(7, "7 ms"), (1500, "1.5 s"), (61_000, "1 min 1 s"), (None, "–")])
def test_a_short_duration_is_shown_precisely(ms: int | None, text: str) -> None:
    assert jinja_filters.duration(ms) == text


def test_succeeded_jobs_are_counted_from_one_sample_to_the_next() -> None:
    minute, start = 60_000, 1_800_000_000_000
    samples = [{"at": start + n * minute, "succeeded": count} for n, count in enumerate((5, 9, 8, 8, 20))]
    plots = overview._plots([0] * 60, [one | {"unfinished": 0, "age": 90_000} for one in samples], start, 60 * minute)
    bars = next(plot.bars for plot in plots if plot.name == "Jobs succeeded")
    assert {plot.name: plot.top for plot in plots} | {
        "Jobs succeeded": "12",
        "Oldest unfinished": "1 min 30 s",
        "Rejected": "1",
    } == {plot.name: plot.top for plot in plots}
    assert [bar.label.partition(": ")[2] for bar in bars[:6]] == ["0", "4", "0", "0", "12", "0"]
    assert [bar.height for bar in bars[:5]] == [0, pytest.approx(100 / 3), 0, 0, 100]


def test_every_reason_for_a_rejection_is_explained() -> None:
    assert tuple(sources.REJECTIONS) == REASONS


def test_half_a_surrogate_pair_in_a_payload_can_be_shown() -> None:
    assert json.loads(redact_to_text(b'{"note": "cut \\ud83d", "more": "a\\u0000"}', ()).encode()) == {
        "note": "cut \ufffd",
        "more": "a\ufffd",
    }
