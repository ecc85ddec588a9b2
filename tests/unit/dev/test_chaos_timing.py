"""The chaos run's time measurements and its report: pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dev.chaos.report import Result, RunConfig, cells, plot, save, saved, write
from dev.harness.checker import Verdict, wrong_counts
from dev.harness.timing import Effect, Outage, Recovery, Spread, delays, recoveries, spread

KILL = Outage("kill a worker", "worker-payments", 10_000, 12_000)
MAIL, ROW = "notify.payment_failed", "payments.payment_failed"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Spread(0, 0, 0)),
        ([3], Spread(3, 3, 3)),
        (range(100, 0, -1), Spread(51, 100, 100)),
        ([*[1] * 199, 9], Spread(1, 1, 9)),
    ],
)
def test_a_spread_is_the_median_the_99th_percentile_and_the_maximum(values: list[float], expected: Spread) -> None:
    assert spread(values) == expected


def test_a_delay_counts_from_the_acknowledgement_and_only_for_events_that_had_one() -> None:
    effects = [Effect("evt_1", ROW, 1500), Effect("evt_2", ROW, 900), Effect("evt_3", ROW, 9000)]
    assert delays({"evt_1": 1000, "evt_2": 1000}, effects) == [0.5, 0.0]


@pytest.mark.parametrize(
    ("acknowledged", "effects", "flowing", "caught_up"),
    [
        ({}, [], 2, 0),
        # An effect during the disturbance is not a recovery.
        ({"evt_1": 9_000}, [Effect("evt_1", ROW, 10_500)], 2, 0.5),
        # The slower of two kinds decides, each by its first effect.
        (
            {"evt_1": 10_500, "evt_2": 12_100},
            [Effect("evt_1", ROW, 12_600), Effect("evt_2", ROW, 19_000), Effect("evt_1", MAIL, 13_000)],
            3,
            3,
        ),
        # An event that was acknowledged after the end is not part of the recovery.
        ({"evt_1": 12_500}, [Effect("evt_1", ROW, 14_000)], 4, 0),
        ({"evt_1": 9_000}, [Effect("evt_1", ROW, 9_500)], 2, 0),
    ],
)
def test_a_recovery_measures_when_effects_flowed_again_and_when_all_were_caught_up(
    acknowledged: dict[str, float], effects: list[Effect], flowing: float, caught_up: float
) -> None:
    assert recoveries([KILL], acknowledged, effects) == [Recovery("kill a worker", 2, flowing, caught_up)]


RESULT = Result(
    config=RunConfig("redis", "sqlite", events=300, kills=1, seed=7),
    when="2027-01-15",
    machine="2 cores, load 1",
    seconds=60,
    tries=350,
    acknowledged=300,
    verdict=Verdict(),
    dead=0,
    repeated_mails=1,
    restarts=2,
    drained=0.5,
    delay=Spread(0.1, 2, 3),
    recoveries=(Recovery("kill a worker", 2, 3, 4),),
)


def test_a_run_is_good_only_when_nothing_is_wrong() -> None:
    assert Verdict().good
    assert not any(Verdict(**{name: ["a finding"]}).good for name in ("lost", "doubled", "wrong"))


@pytest.mark.parametrize("stats", [{"dead": 4, "unfinished": 0}, {"dead": 3, "unfinished": 1}, {}])
def test_dead_and_unfinished_jobs_are_wrong_unless_they_are_by_design(stats: dict[str, int]) -> None:
    assert list(wrong_counts({"dead": 3, "unfinished": 0}, dead=3, unfinished=0)) == []
    assert list(wrong_counts(stats, dead=3, unfinished=0))


def test_the_last_line_has_the_counts_and_the_lines_before_it_the_first_findings() -> None:
    lines: list[str] = []
    Verdict(["evt_1: orders is missing"], wrong=[str(number) for number in range(25)]).print(lines.append)
    assert lines[0] == "  lost: evt_1: orders is missing"
    assert lines[-2:] == ["  wrong: 5 more", "lost 1, doubled 0, wrong 25"]


def test_a_report_has_a_row_for_every_pair_that_was_ever_run(tmp_path: Path) -> None:
    other = replace(
        RESULT,
        config=RunConfig("rabbitmq", "postgres", events=300, kills=1, seed=7),
        verdict=Verdict(["evt_1: orders is missing"], wrong=["5 jobs are dead"]),
    )
    for result in (other, RESULT):
        save(result, tmp_path)
    assert saved(tmp_path) == [RESULT, other]
    write(saved(tmp_path), tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert all(f"| {' | '.join(cells(result))} |" in text for result in (RESULT, other))
    assert "| redis + sqlite | 300 of 300 | 1 | **0** | **0** | 0 | 3.0 / 3.0 / 3.0 |" in text
    assert "rabbitmq-postgres: 5 jobs are dead" in text
    assert "| kill a worker | 2 | 2.0 / 2.0 / 2.0 | 3.0 / 3.0 / 3.0 | 4.0 / 4.0 / 4.0 |" in text
    assert "(chaos-rabbitmq-postgres.svg)" in text


def test_the_plot_has_both_lines_and_a_mark_for_each_disturbance() -> None:
    picture = ElementTree.fromstring(plot([9_000, 10_000], [9_500], [KILL], "redis & sqlite"))
    texts = [element.text for element in picture.iter()]
    assert [texts.count(name) for name in ("acknowledged per second", "effects per second")] == [1, 1]
    assert texts.count("kill a worker: worker-payments") == 1
    lines = [element for element in picture.iter() if element.get("class", "").startswith("line ")]
    assert len(lines) == 3, "acknowledgements, effects and disturbances"


def test_a_plot_of_the_same_data_is_the_same_bytes() -> None:
    assert len({plot([9_000, 10_000], [9_500], [KILL], "redis & sqlite") for _ in range(2)}) == 1
