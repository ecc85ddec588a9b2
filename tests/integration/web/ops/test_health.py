"""/readyz tells the truth: each way in which a real server stops taking or keeping events, in its own words."""

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
from web import create_app


class Limited(Valkey):
    """A server whose files may be given a limit: what it writes beyond that fails, as on a disk that is full."""

    def command(self) -> list[str]:
        return ["sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *super().command()]

    def fill_disk(self) -> None:
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (1000, 1000))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Limited]:
    made = Limited(tmp_path / "valkey")
    made.start()
    yield made
    made.kill()


def asked(server: Valkey, tmp_path: Path, only: str = "store", **settings: str) -> tuple[int, str]:
    environment = {"REDIS_URL": server.url, "DATABASE_URL": f"sqlite:///{tmp_path}/x.db", **settings}
    response = create_app(load(environment)).test_client().get(f"/readyz?only={only}")
    return response.status_code, response.get_json()["checks"][only]


def set_to(name: str, value: str) -> Callable[[Limited, Any], None]:
    return lambda _, client: client.config_set(name, value)


def leave_room(share: float) -> Callable[[Limited, Any], None]:
    return lambda _, client: client.config_set("maxmemory", int(client.info("memory")["used_memory"] * share))


def fill_disk(server: Limited, client: Any) -> None:
    """Not with an fsync before each reply: then the server ends itself."""
    client.config_set("appendfsync", "everysec")
    server.fill_disk()
    wait_until(lambda: refused(client), seconds=10, what="the server to notice")


def refused(client: Any) -> bool:
    try:
        client.set("filler", b"x" * 2000)
    except redis.ResponseError:
        return True
    return False


TROUBLE: dict[str, tuple[Callable[[Limited, Any], None], str]] = {
    "nearly full": (leave_room(1.05), "its memory is nearly full: senders hear 503"),
    "full": (leave_room(0.5), "it takes no events (command not allowed when used memory > 'maxmemory'.): senders"),
    "a replica": (lambda _, client: client.replicaof("127.0.0.1", "1"), "(You can't write against a read only replica"),
    "forsaken": (set_to("min-replicas-to-write", "1"), "it takes no events (NOREPLICAS Not enough good replicas"),
    "no fsync": (set_to("no-appendfsync-on-rewrite", "yes"), "no-appendfsync-on-rewrite is yes, it takes no"),
    "its disk full": (fill_disk, "it could not write to its file (aof_last_write_status)"),
    "managed": (
        lambda _, client: client.execute_command("ACL SETUSER", "default", "-config"),
        "appendfsync is not said by the store, which refuses CONFIG, it takes always",
    ),
    "no writer": (
        lambda _, client: client.execute_command("ACL SETUSER", "default", "-set"),
        "it takes no events (User default has no permissions to run the 'set' command): senders",
    ),
}


@pytest.mark.parametrize(("trouble", "said"), TROUBLE.values(), ids=TROUBLE.keys())
def test_a_store_that_takes_no_events_or_may_lose_them_is_not_ready_and_says_why(
    server: Limited, tmp_path: Path, trouble: Callable[[Limited, Any], None], said: str
) -> None:
    assert asked(server, tmp_path) == (200, "ok")
    trouble(server, redis.Redis.from_url(server.url))
    status, words = asked(server, tmp_path)
    assert (status, said in words) == (503, True), words


@pytest.mark.parametrize("durability", ["everysec", "none"])
def test_a_managed_store_that_refuses_config_serves_a_weaker_durability(
    server: Limited, tmp_path: Path, durability: str
) -> None:
    redis.Redis.from_url(server.url).execute_command("ACL SETUSER", "default", "-config")
    assert asked(server, tmp_path, DURABILITY=durability) == (200, "ok")


def test_a_sweep_in_the_future_is_no_sweep(valkey: Valkey, real_store: Store, tmp_path: Path) -> None:
    real_store.client.set(PREFIX + "swept", real_store.now_ms() + 3_600_000)
    words = "no worker has swept since the store's clock went back; jobs wait for one"
    assert asked(valkey, tmp_path, "sweep") == (503, words)


def test_a_database_that_hangs_is_told_at_once_and_is_well_again_when_it_answers(valkey: Valkey) -> None:
    with Postgres(forgetful=True) as postgres:
        client = create_app(load({"REDIS_URL": valkey.url, "DATABASE_URL": postgres.fresh()})).test_client()
        assert client.get("/readyz?only=database").status_code == 200
        assert postgres.process is not None
        family = [psutil.Process(postgres.process.pid), *psutil.Process(postgres.process.pid).children()]
        for member in family:
            member.send_signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                began = time.monotonic()
                answer = client.get("/readyz?only=database").get_json()["checks"]["database"]
                assert (answer, time.monotonic() - began < 3) == ("does not answer within 2 s", True)
        finally:
            for member in family:
                member.send_signal(signal.SIGCONT)
        wait_until(lambda: client.get("/readyz?only=database").status_code == 200, seconds=10, what="the database")
