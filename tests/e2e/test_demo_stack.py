"""The local stack is small, starts, restarts a part that dies, stops, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from dev.stack.environment import any_ports, without_settings
from dev.stack.local import REPOSITORY, Stack
from dev.stack.parts import Part, supervisor_config
from dev.stack.servers import wait_until


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def stack(tmp_path: Path, reports: list[str]) -> Iterator[Stack]:
    made = Stack(tmp_path / "data", any_ports(), without_settings(os.environ), report=reports.append)
    made.start()
    yield made
    made.stop()


def stack_processes(stack: Stack) -> list[psutil.Process]:
    """Every process that was started for this data folder, including orphans."""
    return [
        process for process in psutil.process_iter() if _environment(process).get("PORT") == str(stack.ports.receiver)
    ]


def memory(processes: list[psutil.Process]) -> float:
    """In MB; what several processes share counts once (on macOS not at all)."""
    infos = [process.memory_full_info() for process in processes]
    return sum(getattr(info, "pss", info.uss) for info in infos) / 1_000_000


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}


@pytest.mark.slow
def test_the_stack_is_small_restarts_a_part_that_dies_and_leaves_no_process(stack: Stack, reports: list[str]) -> None:
    stack.wait_ready()
    assert requests.get(f"{stack.ports.receiver_url}/readyz", timeout=30).json()["ready"]
    assert requests.get(f"{stack.ports.flower_url}/", timeout=30).status_code == 401  # Flower asks for its password
    assert memory(stack_processes(stack)) < 750

    stack.send_signal("receiver", signal.SIGKILL)
    wait_until(lambda: "receiver is up again" in reports, seconds=120, what="the receiver to come back")
    stack.wait_ready()

    stack.stop()
    assert stack_processes(stack) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_parts_end_with_the_process_that_started_the_runner(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "logs").mkdir()
    marker = str(tmp_path / "marker")
    part = Part("sleeper", [sys.executable, "-c", "import time; time.sleep(600)", marker], order=1)
    config = tmp_path / "supervisord.conf"
    config.write_text(supervisor_config(tmp_path, REPOSITORY, [part]))
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(config)], cwd=REPOSITORY)
    wait_until(lambda: bool(_with(marker)), seconds=120, what="the part to start")
    holder.send_signal(number)
    holder.wait(60)
    wait_until(lambda: _with(marker) == [], seconds=120, what="the part to end")


HOLD = """
import subprocess, sys, time
runner = subprocess.Popen([sys.executable, "-m", "dev.stack.supervise", sys.argv[1]], stdin=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, start_new_session=True)
time.sleep(600)
"""


def _with(marker: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if marker in (process.info["cmdline"] or [])]
