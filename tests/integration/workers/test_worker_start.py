"""A worker whose command line lets a job run longer than its lease exits with one line that names the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
POOL = "it must be prefork, which stops jobs at their time limit, or a slow job would run twice at once\n"
LIMIT = "it must be between 0 and LEASE_SECONDS (90), or a slow job would run twice at once\n"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--pool=threads", f"holdfast: --pool is thread; {POOL}"),
        ("--pool=solo", f"holdfast: --pool is solo; {POOL}"),
        ("--time-limit=600", f"holdfast: --time-limit is 600; {LIMIT}"),
        ("--time-limit=0", f"holdfast: --time-limit is 0; {LIMIT}"),
    ],
)
def test_a_command_line_that_breaks_the_lease_rule_stops_the_worker(option: str, said: str) -> None:
    command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", option]
    environ = {**os.environ, "REDIS_URL": "redis://127.0.0.1:9/0"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (1, said)
