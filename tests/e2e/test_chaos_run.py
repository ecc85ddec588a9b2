"""A chaos run small enough for continuous integration, and proof that it finds what is broken.

`make chaos` is the real one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dev.chaos.__main__ import run_one
from dev.chaos.plan import kinds
from dev.chaos.report import RunConfig, saved
from dev.stack.rabbitmq import BROKERS

ROOT = Path(__file__).parents[2]
MATRIX = pytest.mark.matrix
PAIRS = [("redis", "sqlite"), *([("rabbitmq", "postgres")] if "rabbitmq" in BROKERS else [])]
SABOTAGED = {"receiver": "tests.support.sabotaged_receiver", "worker": "tests.support.sabotaged_worker"}


@MATRIX
@pytest.mark.slow
@pytest.mark.timeout(600)  # two minutes where nothing else runs
@pytest.mark.parametrize(("broker", "database"), PAIRS)
def test_a_small_chaos_run_of_every_kind_loses_nothing_doubles_nothing_and_writes_its_report(
    tmp_path: Path, broker: str, database: str
) -> None:
    every = kinds(broker, database)
    size = ["--events", "200", "--kills", str(len(every)), "--seed", "65", "--broker", broker, "--database", database]
    command = [sys.executable, "-m", "dev.chaos", *size, "--data", str(tmp_path), "--report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "lost 0, doubled 0, wrong 0"
    assert "SEED=65 make chaos" in done.stdout
    (result,) = saved(tmp_path)
    assert {one.kind for one in result.recoveries} == every.keys()
    assert result.acknowledged == 200
    row = f"| {broker} + {database} | 200 of 200 | {len(every)} | **0** | **0** |"
    assert row in (tmp_path / "chaos-report.md").read_text()


@MATRIX
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("sabotage", "disturbances", "deaths", "found"),
    [
        ("", 0, "0.1", []),  # the deaths alone do no harm
        (
            "effect row off;mails twice",
            0,
            "0.1",
            [": writes of effects.job_id is there 2 times", " mails is there 2 times"],
        ),
        ("sweep off", 2, "0", ["lost: "]),
        ("200 before the record", 2, "0", ["lost: "]),
    ],
)
def test_a_safeguard_that_is_taken_out_is_found_by_the_run(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: str,
    disturbances: int,
    deaths: str,
    found: list[str],
) -> None:
    monkeypatch.setenv("HOLDFAST_SABOTAGE", sabotage)
    monkeypatch.setenv("HOLDFAST_DEATHS", deaths)
    only = "delete the queues" if sabotage == "sweep off" else "fill the store"
    config = RunConfig(
        "redis", "sqlite", 60, disturbances, 3, only=only, stuck_seconds=12 if found else 60, **SABOTAGED
    )
    exit_code, printed = run_one(config, tmp_path, tmp_path), capsys.readouterr().out
    assert exit_code == (1 if found else 0), printed
    assert (printed.splitlines()[-1] == "lost 0, doubled 0, wrong 0") is (not found)
    (result,) = saved(tmp_path)  # all of the findings; what is printed are the first of them
    findings = [
        *(f"lost: {one}" for one in result.verdict.lost),
        *(f"doubled: {one}" for one in result.verdict.doubled),
    ]
    assert all(any(words in one for one in findings) for words in found), printed
