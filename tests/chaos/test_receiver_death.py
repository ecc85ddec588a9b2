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


def test_the_serving_processes_of_a_killed_receiver_do_not_listen_on(stack: Stack) -> None:
    receiver = stack.receiver()
    serving = [process for process in receiver.children() if process.is_running()]
    assert len(serving) == 2
    os.kill(receiver.process.pid, signal.SIGKILL)
    try:
        wait_until(lambda: psutil.wait_procs(serving, 0)[1] == [], seconds=10, what="them to end")
    finally:
        for process in psutil.wait_procs(serving, 0)[1]:
            process.kill()
    with pytest.raises(requests.ConnectionError):
        requests.get(stack.url("/livez"), timeout=1)
