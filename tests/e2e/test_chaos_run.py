"""A chaos run of the size that continuous integration can bear; `make chaos` is the real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dev.chaos.report import saved

ROOT = Path(__file__).parents[2]
THEIRS = {"break the mail service", "break the document service", "break Stripe"}  # with this seed, after the deed


@pytest.mark.timeout(240)  # half a minute where nothing else runs
def test_a_small_chaos_run_loses_nothing_doubles_nothing_and_writes_its_report(tmp_path: Path) -> None:
    size = ["--events", "200", "--kills", "6", "--seed", "65"]
    command = [sys.executable, "-m", "dev.chaos", *size, "--data", str(tmp_path), "--report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0  doubled 0  dead 0  owed 0" in done.stdout
    assert "SEED=65 make chaos" in done.stdout
    (result,) = saved(tmp_path)
    assert {one.kind for one in result.recoveries} >= THEIRS
    assert (result.acknowledged, len(result.recoveries)) == (200, 6)
    assert "| redis + sqlite | 200 of 200 | 6 | **0** | **0** |" in (tmp_path / "chaos-report.md").read_text()
