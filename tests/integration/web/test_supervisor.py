"""The main process of `python -m web`, which only watches the serving processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from dev.stack.servers import answers, free_port, wait_until
from tests.support.signed_deliveries import STRIPE_SECRET

ROOT = Path(__file__).parents[3]


def memory(process: psutil.Process) -> int:
    """Bytes that no other process shares."""
    return int(process.memory_full_info().uss)


def test_it_needs_less_than_half_of_the_memory_of_a_serving_process() -> None:
    port = str(free_port())
    settings = {"REDIS_URL": "redis://127.0.0.1:9/0", "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "PORT": port}
    with subprocess.Popen([sys.executable, "-m", "web"], cwd=ROOT, env={**os.environ, **settings}) as process:
        try:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/livez"), seconds=100, what="the receiver")
            supervisor = psutil.Process(process.pid)
            assert memory(supervisor) < max(memory(child) for child in supervisor.children()) / 2
        finally:
            process.terminate()
