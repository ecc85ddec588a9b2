"""Which alerts fire and which are announced, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from inbox import alert_rules
from inbox.alert_rules import HOLD_MS, AlertDigest, AlertInputs, AlertState, AlertThresholds, decide, firing_alerts

NOW = 1_800_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
QUIET = 4 * HOUR
LIMITS = AlertThresholds(30 * MINUTE, {"stripe": 24 * HOUR})


@pytest.mark.parametrize(
    ("figures", "names"),
    [
        ({}, []),
        ({"dead": 1}, ["dead"]),
        ({"missed": 2}, ["missed"]),
        ({"unfinished_since": {"payments": NOW - 30 * MINUTE}}, []),
        ({"unfinished_since": {"payments": NOW - 31 * MINUTE, "documents": NOW + HOUR}}, ["backlog payments"]),
        ({"last": {"stripe": NOW - 24 * HOUR}}, []),
        ({"last": {"stripe": NOW - 25 * HOUR, "github": 0}}, ["silent stripe"]),
        ({"last": {}}, []),
        ({"unproven": {"stripe": 2, "crm": 3}}, ["signatures crm"]),
        ({"memory": (80, 100)}, []),
        ({"memory": (81, 100)}, ["memory"]),
        ({"memory": (81, 0)}, []),
        ({"disks": {"host-1": 5}}, ["disk host-1"]),
    ],
)
def test_each_alert_fires_for_its_own_condition_only(figures: dict[str, Any], names: list[str]) -> None:
    assert list(firing_alerts(AlertInputs(NOW, **figures), LIMITS)) == names


@pytest.mark.parametrize(
    ("free", "total", "is_short"),
    [(4, 100, True), (5, 100, False), (9 * 1024**3, 10**13, True), (11 * 1024**3, 10**13, False)],
)
def test_a_disk_is_short_by_its_share_and_by_its_bytes(free: int, total: int, is_short: bool) -> None:
    assert alert_rules.is_disk_short(free, total) is is_short


ANNOUNCED = AlertState("it", NOW - HOUR, NOW - HOUR)
RECENTLY_CALM = AlertState("it", NOW - HOUR, NOW - HOUR, NOW - MINUTE)


@pytest.mark.parametrize(
    ("before", "fires", "digest"),
    [
        (None, True, AlertDigest(new=("it",))),
        (None, False, AlertDigest()),
        (ANNOUNCED, True, AlertDigest()),
        (AlertState("it", 1, NOW - QUIET + 1), True, AlertDigest()),
        (AlertState("it", 1, NOW - QUIET), True, AlertDigest(again=("it",))),
        (ANNOUNCED, False, AlertDigest()),
        (RECENTLY_CALM, False, AlertDigest()),
        (RECENTLY_CALM, True, AlertDigest()),
        (AlertState("it", 1, 1, NOW - HOLD_MS), False, AlertDigest(over=("it",))),
    ],
)
def test_an_alert_is_announced_when_it_begins_lasts_and_is_over(
    before: AlertState | None, fires: bool, digest: AlertDigest
) -> None:
    known = {"name": before} if before else {}
    _, result = decide(known, {"name": "it"} if fires else {}, NOW, QUIET)
    assert result == digest


def history(fires: list[bool], step: int, patience: int = 0) -> list[AlertDigest]:
    """What is announced at each check."""
    standing: dict[str, AlertState] = {}
    digests = []
    for n, one in enumerate(fires):
        standing, digest = decide(standing, {"name": "it"} if one else {}, NOW + n * step, QUIET, patience)
        digests.append(digest)
    return digests


def test_a_flapping_alert_is_announced_once_and_resolved_once() -> None:
    digests = [digest for digest in history([n % 2 == 0 for n in range(60)] + [False] * 10, MINUTE) if digest]
    assert digests == [AlertDigest(new=("it",)), AlertDigest(over=("it",))]


def test_a_lasting_alert_is_repeated_after_each_quiet_time() -> None:
    digests = [digest for digest in history([True] * 25, HOUR) if digest]
    assert digests == [AlertDigest(new=("it",)), *[AlertDigest(again=("it",))] * 6]


def test_an_alert_shorter_than_the_patience_is_not_announced() -> None:
    assert not any(history([True, True, False, False] * 5, 10_000, patience=30_000))
    assert history([True] * 4, 10_000, patience=30_000)[3] == AlertDigest(new=("it",))


def test_all_alerts_of_one_check_are_one_message() -> None:
    digest = AlertDigest(("a died", "b is full"), ("c lasts",), ("d",))
    assert digest.subject() == "a died, and 3 more"
    assert digest.text() == "New:\n- a died\n- b is full\n\nStill:\n- c lasts\n\nResolved:\n- d"
    assert AlertDigest(over=("d",)).subject() == "resolved: d"
