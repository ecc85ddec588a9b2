"""`python -m web --plain-asgi`, which also runs with an untested uvicorn: a real process, without our protocol."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.stack.servers import Valkey, free_port, wait_until
from inbox import queries
from inbox.store import Store
from settings import load
from tests.support.signed_deliveries import STRIPE_SECRET, signed_by_stripe, stripe_event
from web.application import create_asgi_app

ROOT = Path(__file__).parents[4]
UNTESTED = """
import sys
from telemetry import tested_versions
tested_versions.TESTED["uvicorn"] = ("0.1", "0.2")
sys.modules["web.receiver.protocol"] = None  # importing it fails
from web.__main__ import main
main()
"""


@contextmanager
def receiver(valkey: Valkey, folder: Path, *arguments: str) -> Iterator[tuple[str, Path]]:
    """Its address and its log."""
    port, log = free_port(), folder / "log"
    environ = {
        **os.environ,
        "REDIS_URL": valkey.url,
        "DATABASE_URL": f"sqlite:///{folder}/x.db",
        "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
        "PORT": str(port),
    }
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environ, stderr=file, stdout=file)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _alive(url), seconds=60, what=f"the receiver; see {log}")
        yield url, log
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)


def _alive(url: str) -> bool:
    try:
        return requests.get(f"{url}/livez", timeout=5).ok
    except requests.RequestException:
        return False


START = {"by the option": ("-m", "web", "--plain-asgi"), "because uvicorn is untested": ("-c", UNTESTED)}


@pytest.mark.parametrize("arguments", START.values(), ids=START)
def test_webhooks_are_verified_recorded_and_counted(
    valkey: Valkey, real_store: Store, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    body, headers = signed_by_stripe(stripe_event("evt_1"))
    with receiver(valkey, tmp_path, *arguments) as (url, log):
        with requests.Session() as session:
            good = [session.post(f"{url}/stripe-webhook", data=body, headers=headers, timeout=10) for _ in range(2)]
            bad = session.post(f"{url}/hooks/stripe", data=b"{}", timeout=10)
            other = session.post(f"{url}/hooks/other", data=b"{}", timeout=10)
            wrong = session.get(f"{url}/stripe-webhook", timeout=10)
            endless = (b"x" * 1000 for _ in range(2000))
            large = session.post(f"{url}/stripe-webhook", data=endless, headers=headers, timeout=10)
        assert [one.json() for one in good] == [{"success": True}] * 2
        assert [one.status_code for one in (bad, other, wrong, large)] == [400, 404, 405, 413]
        untested = "untested library versions" in log.read_text()
        assert untested == (arguments[0] == "-c")
    stats = queries.stats(real_store)  # the counts of the last second are written at the stop
    assert (stats["accepted"], stats["duplicates"], stats["rejected"]) == (1, 1, 2)


def test_a_client_that_disconnects_is_counted_and_its_memory_is_released(valkey: Valkey) -> None:
    settings = load({"REDIS_URL": valkey.url, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET})

    async def scene() -> int:
        app = create_asgi_app(settings)
        free = app.receiver.body_budget._free
        messages: list[Any] = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"{", "more_body": True}]

        async def receive() -> Any:
            return messages.pop()

        async def send(message: Any) -> None:
            raise AssertionError(message)

        _, signed = signed_by_stripe(stripe_event("evt_1"))
        headers = [(name.lower().encode(), value.encode()) for name, value in signed.items()]
        scope: Any = {"type": "http", "method": "POST", "path": "/stripe-webhook", "query_string": b""}
        scope["headers"] = headers
        await app(scope, receive, send)
        await app.receiver.counters.flush()
        return free - app.receiver.body_budget._free

    assert asyncio.run(scene()) == 0
