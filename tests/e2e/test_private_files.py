"""What the real processes create can be opened by their user only, whatever the umask they are started with.

The documents are in test_spine.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dev.stack.servers import Valkey, free_port, wait_until
from tests.support.stack import Stack


@pytest.fixture
def stack(valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    before = os.umask(0o022)
    made = Stack(tmp_path, {"REDIS_URL": valkey.url})
    yield made
    made.end()
    os.umask(before)


def is_private(path: Path) -> bool:
    return path.stat().st_mode & 0o077 == 0


def test_a_database_is_private_whichever_process_creates_it(stack: Stack, tmp_path: Path) -> None:
    database = tmp_path / "test.db"
    stack.migrate()
    assert is_private(database)
    database.unlink()
    stack.receiver()
    requests.get(stack.url("/readyz"), timeout=30)
    assert is_private(database)


def test_what_a_worker_and_its_pool_create_is_private(stack: Stack, tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    stack.migrate()
    worker = stack.worker(app="workers.app", HEARTBEAT_FILE=str(heartbeat))
    wait_until(heartbeat.exists, seconds=60, what="the heartbeat")
    assert is_private(heartbeat)
    if sys.platform == "linux":
        status = [Path(f"/proc/{process.pid}/status").read_text() for process in worker.family()]
        assert [text.partition("Umask:")[2].split()[0] for text in status] == ["0077"] * 2


def test_flower_keeps_its_history_private(stack: Stack, tmp_path: Path) -> None:
    history, where = tmp_path / "history", ("--conf=workers/flowerconfig.py", f"--port={free_port()}")
    saved = ("--persistent=True", f"--db={history}", "--state_save_interval=1000", "--basic-auth=a:b")
    stack.part("celery", "-A", "workers.flower_app", "flower", *where, *saved, name="flower")
    wait_until(lambda: any(tmp_path.glob("history*")), seconds=120, what="Flower's history")
    assert all(is_private(path) for path in tmp_path.glob("history*"))
