"""/livez and /readyz of the whole application."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from celery import Celery
from werkzeug.test import Client

from dev.stack.servers import Valkey, free_port
from inbox.store import Store
from inbox.worker_registry import announce
from settings import load
from tasks import broker
from tasks.routes import QUEUES
from tests.conftest import Clock
from tests.support.asgi_client import asgi_client
from web.ops.health_pages import SharedCheck


@pytest.fixture
def client(valkey: Valkey, database: str) -> Client:
    return asgi_client(load({"REDIS_URL": valkey.url, "DATABASE_URL": database}))


@pytest.fixture
def sweeping(client: Client, real_store: Store, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of a stack with sweeping workers and a broker."""
    app = Celery("holdfast")
    app.config_from_object("celeryconfig")
    app.conf.broker_url = valkey.url
    monkeypatch.setattr(broker, "app", app)
    real_store.sweep(1, {})
    return client


def test_ready_means_that_every_part_works(sweeping: Client) -> None:
    answer = sweeping.get("/readyz")
    assert (answer.status_code, answer.get_json()) == (
        200,
        {
            "ready": True,
            "checks": {"store": "ok", "broker": "ok", "database": "ok", "sweep": "ok"},
            "loss_window": "nothing; if a replica takes over, also events it has not yet received (see REPLICAS_ACK)",
        },
    )


@pytest.mark.parametrize(
    ("setting", "weak", "kept"),
    [
        ("appendfsync", "everysec", "always"),
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ],
)
def test_a_store_that_may_lose_events_is_not_ready(
    sweeping: Client, real_store: Store, setting: str, weak: str, kept: str
) -> None:
    real_store.client.config_set(setting, weak)
    try:
        response = sweeping.get("/readyz?only=store")
    finally:
        real_store.client.config_set(setting, kept)
    assert response.status_code == 503
    assert response.get_json()["checks"] == {"store": f"{setting} must be {kept} (it is {weak})"}


def test_a_weaker_durability_that_was_configured_is_ready_and_reports_its_loss_window(
    valkey: Valkey, real_store: Store, database: str
) -> None:
    chosen = load({"REDIS_URL": valkey.url, "DATABASE_URL": database, "DURABILITY": "everysec"})
    real_store.client.config_set("appendfsync", "everysec")
    try:
        response = asgi_client(chosen).get("/readyz?only=store")
    finally:
        real_store.client.config_set("appendfsync", "always")
    assert (response.status_code, response.get_json()["loss_window"]) == (
        200,
        "up to 2 seconds of events in a power cut; if a replica takes over, also events it has not yet received"
        " (see REPLICAS_ACK)",
    )


def test_without_workers_readyz_reports_it_and_livez_is_200(client: Client) -> None:
    assert client.get("/readyz?only=sweep").get_json()["checks"] == {"sweep": "no worker has ever swept"}
    assert client.get("/readyz?only=store").status_code == 200
    assert client.get("/readyz?only=weather").status_code == 400


def test_stopped_workers_are_reported(client: Client, store: Store, clock: Clock) -> None:
    clock.ms = int(time.time() * 1000) - 60_000
    store.sweep(1, {})
    answer = client.get("/readyz?only=sweep").get_json()["checks"]["sweep"]
    assert answer.startswith("no worker has swept for 6"), answer


def test_a_queue_without_a_worker_is_named(client: Client, store: Store, clock: Clock) -> None:
    clock.ms = int(time.time() * 1000) - 61_000
    announce(store, "all@host", "host/1", QUEUES, QUEUES)
    clock.forward(61)
    announce(store, "most@host", "host/2", [*QUEUES[:3], QUEUES[5]], QUEUES)
    store.sweep(1, {})
    answer = client.get("/readyz?only=sweep")
    assert (answer.status_code, answer.get_json()["checks"]) == (
        503,
        {"sweep": "no worker consumes downloads, notifications; jobs wait there"},
    )


def test_readyz_names_the_part_that_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    app = Celery("holdfast")
    app.config_from_object("celeryconfig")
    app.conf.broker_url = url
    monkeypatch.setattr(broker, "app", app)
    nowhere = {"REDIS_URL": url, "DATABASE_URL": f"sqlite:///{tmp_path}/no/such.db"}
    response = asgi_client(load(nowhere)).get("/readyz")
    assert (response.status_code, response.get_json()["checks"]) == (
        503,
        {
            "store": "cannot be reached (StoreUnavailable)",
            "broker": "does not answer; jobs wait until it does",
            "database": "cannot be reached (OperationalError)",
            "sweep": "cannot be reached (StoreUnavailable)",
        },
    )


def test_a_name_that_is_repeated_is_checked_once(client: Client) -> None:
    assert client.get("/readyz?only=store,store").get_json()["checks"] == {"store": "ok"}
    many = client.get(f"/readyz?only={','.join(['store'] * 1500)}")
    assert (many.status_code, many.get_json()["error"].startswith("only must be one or more of store,")) == (400, True)


def test_a_method_that_only_asks_is_required(client: Client) -> None:
    answer = client.post("/readyz")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert client.get("/livez").get_json() == {"alive": True}


def test_all_who_ask_share_one_check_and_its_result_for_a_second() -> None:
    runs: list[float] = []

    def check() -> str:
        runs.append(time.monotonic())
        time.sleep(0.05)
        return "ok"

    async def scene() -> list[str]:
        shared = SharedCheck(check, ThreadPoolExecutor(4))
        found = await asyncio.gather(*(shared.result() for _ in range(500)))
        return found + [await shared.result() for _ in range(500)]

    began = time.monotonic()
    assert asyncio.run(scene()) == ["ok"] * 1000
    assert len(runs) <= 1 + (time.monotonic() - began)


def test_a_check_that_hangs_is_not_run_again_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.ops.health_pages.TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr("web.ops.health_pages.FRESH_SECONDS", 0.0)
    goes_on, runs = threading.Event(), []

    def check() -> str:
        runs.append(1)
        goes_on.wait()
        return "ok"

    async def scene() -> None:
        shared = SharedCheck(check, ThreadPoolExecutor(4))
        for _ in range(3):
            assert await shared.result() == "does not answer within 0.05 s"
        assert len(runs) == 1
        goes_on.set()
        while await shared.result() != "ok":
            await asyncio.sleep(0.01)

    asyncio.run(scene())
