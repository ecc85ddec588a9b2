"""The Celery app that Flower loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LOADED = """
import sys
import workers.flower_app
print(sorted({"apprise", "boto3", "flask", "sqlalchemy", "stripe"} & sys.modules.keys()))
"""


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **settings}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=100, check=False)


def test_it_loads_none_of_the_libraries_of_the_tasks() -> None:
    """They would cost 50 MB."""
    assert run("-c", LOADED).stdout == "[]\n"


def test_flower_stops_at_a_wrong_setting_with_one_line() -> None:
    done = run("-m", "celery", "-A", "workers.flower_app", "flower", BROKER_URL="nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("holdfast: BROKER_URL")
