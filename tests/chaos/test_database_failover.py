"""Postgres fails over: the former primary stays up as a standby, and the address moves a moment later."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey, wait_until
from dev.stack.tcp_proxy import TcpProxy
from inbox.client import connect
from inbox.rules import Rules
from inbox.store import Store
from tasks.broker import task_message
from tests.chaos.conftest import World
from tests.support.stack import Stack

STANDBY_SECONDS = 6  # for which the address still leads to the former primary


@pytest.fixture
def primary() -> Iterator[Postgres]:
    with Postgres(forgetful=False) as server:
        yield server


@pytest.fixture
def standby(primary: Postgres) -> Iterator[Postgres]:
    """Not started yet, and without data."""
    server = Postgres(forgetful=False)
    server.bin = primary.bin
    shutil.copystat(primary.folder, server.folder)
    if server.user is not None:
        shutil.chown(server.folder, server.user)
    yield server
    server.__exit__()


def fail_over(primary: Postgres, standby: Postgres) -> None:
    """The standby becomes the primary and the primary a standby; both run afterwards, with the same data."""
    primary.end(signal.SIGINT)
    subprocess.run(["cp", "-a", primary.folder / "data", standby.folder], check=True)
    (primary.folder / "data" / "standby.signal").touch()
    for server in (primary, standby):
        server.start()


@pytest.mark.slow
def test_workers_and_receiver_follow_the_address_to_the_new_primary(
    valkey: Valkey, primary: Postgres, standby: Postgres, tmp_path: Path
) -> None:
    with TcpProxy(primary.socket) as address:
        database = f"postgresql+psycopg://postgres@127.0.0.1:{address.port}/test"
        stack = Stack(tmp_path, {"REDIS_URL": valkey.url, "DATABASE_URL": database})
        store = Store(connect(valkey.url, timeout_seconds=5), Rules(ring_again_seconds=2), message=task_message)
        world = World(stack, valkey, store, database, None)
        try:
            stack.receiver()
            worker = stack.worker(processes=2)
            jobs = [world.record("plain", f"before_{n}") for n in range(4)]
            world.settle()
            fail_over(primary, standby)
            jobs += [world.record("plain", f"during_{n}") for n in range(4)]
            time.sleep(STANDBY_SECONDS)
            ready = requests.get(stack.url("/readyz?only=database"), timeout=5).json()
            assert ready["checks"] == {"database": "is read-only: jobs wait until a server accepts writes"}
            address.to = standby.socket
            jobs += [world.record("plain", f"after_{n}") for n in range(4)]
            world.settle()
            assert [world.effects(job) for job in jobs] == [1] * 12
            assert worker.alive()
            wait_until(
                lambda: requests.get(stack.url("/readyz?only=database"), timeout=5).ok, seconds=30, what="readiness"
            )
        finally:
            stack.end()
