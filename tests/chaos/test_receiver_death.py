"""What becomes of the receiver's own processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from dev.servers import Valkey, wait_until
from tests.stack import Stack


@pytest.fixture
def stack(valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, {"REDIS_URL": valkey.url, "WEB_PROCESSES": "2"})
    yield made
    made.end()


def runs(process: psutil.Process) -> bool:
    """And is not only remembered until somebody asks how it ended."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_serving_processes_of_a_killed_receiver_do_not_listen_on(stack: Stack) -> None:
    receiver = stack.receiver()
    serving = [process for process in receiver.children() if process.is_running()]
    assert len(serving) == 3  # two of them, and what tracks resources for Python's multiprocessing
    os.kill(receiver.process.pid, signal.SIGKILL)
    try:
        wait_until(lambda: not any(map(runs, serving)), seconds=10, what="them to end")
    finally:
        for process in psutil.wait_procs(serving, 0)[1]:
            process.kill()
    with pytest.raises(requests.ConnectionError):
        requests.get(stack.url("/livez"), timeout=1)
