"""Deaths of the receiver's processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from dev.stack.servers import Valkey, wait_until
from tests.support.stack import Process, Stack


@pytest.fixture
def stack(valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path, {"REDIS_URL": valkey.url, "WEB_PROCESSES": "2"})
    yield made
    made.end()


def runs(process: psutil.Process) -> bool:
    """True if the process exists and is not a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def serving(receiver: Process) -> list[psutil.Process]:
    """The processes that listen; another child tracks resources for Python's multiprocessing."""
    return [child for child in receiver.children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_serving_process_that_dies_before_its_health_check_is_replaced_at_once(stack: Stack) -> None:
    """Not after the health check's timeout of half a minute."""
    receiver = stack.receiver(WEB_PROCESSES="1")
    (victim,) = serving(receiver)
    victim.suspend()
    time.sleep(1)  # the health check runs every half a second
    victim.kill()
    assert requests.get(stack.url("/livez"), timeout=20).ok


def test_the_serving_processes_of_a_killed_receiver_stop_listening(stack: Stack) -> None:
    receiver = stack.receiver()
    children = receiver.children()
    assert len(serving(receiver)) == 2
    os.kill(receiver.process.pid, signal.SIGKILL)
    try:
        wait_until(lambda: not any(map(runs, children)), seconds=10, what="them to end")
    finally:
        for process in psutil.wait_procs(children, 0)[1]:
            process.kill()
    with pytest.raises(requests.ConnectionError):
        requests.get(stack.url("/livez"), timeout=1)
