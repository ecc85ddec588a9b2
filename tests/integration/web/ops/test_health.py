"""/readyz reports each way in which a real server stops accepting or keeping events, with its reason."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from dev.stack.postgres import Postgres
from dev.stack.servers import Valkey, wait_until
from inbox.store import PREFIX, Store
from settings import load
from tests.support.asgi_client import asgi_client
from tests.support.databases import fresh_postgres
from web.ops.health_pages import FRESH_SECONDS


class Limited(Valkey):
    """A server whose files can be limited in size: writing more fails, as on a full disk."""

    def command(self) -> list[str]:
        return ["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *super().command()]

    def fill_disk(self) -> None:
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (1000, 1000))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Limited]:
    server = Limited(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


def readiness(server: Valkey, tmp_path: Path, only: str = "store", **settings: str) -> tuple[int, str]:
    environment = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{tmp_path}/x.db", **settings}
    response = asgi_client(load(environment)).get(f"/readyz?only={only}")
    return response.status_code, response.get_json()["checks"][only]


def set_to(name: str, value: str) -> Callable[[Limited, Any], None]:
    return lambda _, client: client.config_set(name, value)


def limit_memory(share: float) -> Callable[[Limited, Any], None]:
    return lambda _, client: client.config_set("maxmemory", int(client.info("memory")["used_memory"] * share))


def fill_disk(server: Limited, client: Any) -> None:
    """With everysec, because with always the server ends itself if it cannot write."""
    client.config_set("appendfsync", "everysec")
    server.fill_disk()
    wait_until(lambda: refuses_writes(client), seconds=10, what="the server to notice")


def refuses_writes(client: Any) -> bool:
    try:
        client.set("filler", b"x" * 2000)
    except redis.ResponseError:
        return True
    return False


FAILURES: dict[str, tuple[Callable[[Limited, Any], None], str]] = {
    "nearly full": (limit_memory(1.05), "its memory is nearly full: sources receive 503"),
    "full": (limit_memory(0.5), "it refuses events (command not allowed when used memory > 'maxmemory'.): sources"),
    "a replica": (lambda _, client: client.replicaof("127.0.0.1", "1"), "(You can't write against a read only replica"),
    "too few replicas": (
        set_to("min-replicas-to-write", "1"),
        "it refuses events (NOREPLICAS Not enough good replicas",
    ),
    "no fsync": (set_to("no-appendfsync-on-rewrite", "yes"), "no-appendfsync-on-rewrite must be no (it is yes)"),
    "disk full": (fill_disk, "it cannot write to its append-only file (aof_last_write_status)"),
    "managed": (
        lambda _, client: client.execute_command("ACL SETUSER", "default", "-config"),
        "appendfsync must be always (it is unknown: the store refuses CONFIG)",
    ),
    "no writer": (
        lambda _, client: client.execute_command("ACL SETUSER", "default", "-set"),
        "it refuses events (User default has no permissions to run the 'set' command): sources",
    ),
}


@pytest.mark.parametrize(("cause_failure", "message"), FAILURES.values(), ids=FAILURES.keys())
def test_a_store_that_refuses_events_or_may_lose_them_is_not_ready_and_reports_why(
    server: Limited, tmp_path: Path, cause_failure: Callable[[Limited, Any], None], message: str
) -> None:
    assert readiness(server, tmp_path) == (200, "ok")
    cause_failure(server, redis.Redis.from_url(server.url))
    status, result = readiness(server, tmp_path)
    assert (status, message in result) == (503, True), result


@pytest.mark.parametrize("durability", ["everysec", "none"])
def test_a_managed_store_that_refuses_config_is_ready_for_a_weaker_durability(
    server: Limited, tmp_path: Path, durability: str
) -> None:
    redis.Redis.from_url(server.url).execute_command("ACL SETUSER", "default", "-config")
    assert readiness(server, tmp_path, DURABILITY=durability) == (200, "ok")


def test_a_sweep_in_the_future_does_not_count(valkey: Valkey, real_store: Store, tmp_path: Path) -> None:
    real_store.client.set(PREFIX + "swept", real_store.now_ms() + 3_600_000)
    message = "no worker has swept since the store's clock went back; jobs wait for one"
    assert readiness(valkey, tmp_path, "sweep") == (503, message)


def test_a_database_that_hangs_is_reported_within_seconds_until_it_responds_again(valkey: Valkey) -> None:
    with Postgres(forgetful=True) as postgres:
        client = asgi_client(load({"REDIS_URL": valkey.url, "DATABASE_URL": fresh_postgres(postgres)}))
        assert client.get("/readyz?only=database").status_code == 200
        assert postgres.process is not None
        processes = [psutil.Process(postgres.process.pid), *psutil.Process(postgres.process.pid).children()]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        time.sleep(FRESH_SECONDS)
        try:
            for _ in range(3):
                began = time.monotonic()
                result = client.get("/readyz?only=database").get_json()["checks"]["database"]
                assert (result, time.monotonic() - began < 3) == ("does not answer within 2 s", True)
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.get("/readyz?only=database").status_code == 200, seconds=10, what="the database")
