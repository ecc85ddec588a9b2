"""Hundreds of clients without a key, each bad in its way, and beside them senders and operators that notice nothing."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from dev.stack.servers import Valkey
from settings import load
from tasks.db.engine import make_engine, make_sessions
from tasks.models import Document
from tasks.signed_link import create_link
from tests.conftest import fresh_database
from tests.support import bad_clients
from tests.support.caddy import Caddy
from tests.support.signed_deliveries import API_KEY, signed_by_stripe, stripe_event
from tests.support.stack import Process, Stack
from web import body, downloads, flask_host
from web.receiver import connections, protocol

pytestmark = pytest.mark.slow

SECONDS = 25 if os.environ.get("HYPOTHESIS_PROFILE") == "all" else 5
CLIENTS = len(bad_clients.KINDS) * bad_clients.EACH
KEY = {"Authorization": f"Bearer {API_KEY}"}
BAD_KEY, RATE_PER_MINUTE = "key-of-a-program-in-a-loop-0123456789", 60
GOOD_KEY_PAUSE = 2.5  # seconds between its requests, of two clients: less than its rate
MB = 1024 * 1024
READ_BYTES = 256 * 1000  # uvloop's, of one connection at once
MAX_THREADS = flask_host.KNOWN_THREADS + 2 * flask_host.STRANGERS_THREADS + downloads.THREADS + 4 + 12  # health, others
BUFFER_BYTES = 64 * 1024  # written and not yet sent, before uvicorn waits
# What all clients can hold at once, by the limits: webhook bodies, which are joined when they are complete; of each
# connection one read, a head and unsent bytes; waiting requests; chunks of downloads.
HELD_BYTES = (
    2 * body.BUDGET_BYTES
    + CLIENTS * (READ_BYTES + protocol.MAX_NON_BODY_BYTES + BUFFER_BYTES)
    + connections.MAX_WAITED_ON * connections.MAX_WAITING * 4096
    + downloads.MAX_BY_LINKS * (2 * downloads.CHUNK_BYTES + BUFFER_BYTES)
)


@pytest.fixture
def stack(request: pytest.FixtureRequest, valkey: Valkey, tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, {"REDIS_URL": valkey.url, "DATABASE_URL": fresh_database(request, "sqlite")})
    yield stack
    stack.end()


def path_of_a_link(stack: Stack) -> str:
    """To a finished document of 64 MB."""
    settings, now = load(stack.environment), datetime.now(UTC)
    folder = Path(settings.document_store)
    folder.mkdir()
    with (folder / "doc_1.bin").open("wb") as file:
        file.truncate(64 * MB)
    row = Document(id="doc_1", document_id="d", status="completed", stored_as="doc_1.bin", size=64 * MB)
    row.created_at = row.updated_at = now
    with make_sessions(make_engine(settings.database_url))() as db:
        db.add(row)
        db.commit()
    return create_link(settings, "doc_1", now, 3600).removeprefix(settings.public_url)


class Regulars(threading.Thread):
    """Makes one request after the other, at a steady rate; keeps the outcomes and how long each took."""

    def __init__(self, ask: Callable[[], requests.Response], pause_seconds: float) -> None:
        super().__init__()
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._ended = threading.Event()
        self._ask, self._pause_seconds = ask, pause_seconds
        self.start()

    def run(self) -> None:
        while not self._ended.wait(self._pause_seconds):
            began = time.monotonic()
            try:
                answer = self._ask()
                self.outcomes["200" if answer.ok else f"{answer.status_code} {answer.text[:200]}"] += 1
            except requests.RequestException as error:
                self.outcomes[repr(error)] += 1
            self.seconds.append(time.monotonic() - began)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def refusals(self) -> Counter[str]:
        """Other than by a store that a busy machine keeps from answering in time."""
        late = ("the store is not available", "StoreUnavailable", "does not answer within")
        return Counter({one: n for one, n in self.outcomes.items() if one != "200" and not any(x in one for x in late)})


def deliver(url: str, size: int) -> Callable[[], requests.Response]:
    session = requests.Session()

    def ask() -> requests.Response:
        data, headers = signed_by_stripe(stripe_event(f"evt_{time.monotonic_ns()}", pad="x" * size))
        return session.post(f"{url}/stripe-webhook", data=data, headers=headers, timeout=30)

    return ask


def see(url: str, **headers: str) -> Callable[[], requests.Response]:
    return lambda: requests.get(url, headers=headers, timeout=30)


def signed_in(url: str) -> str:
    """The cookie of a console session."""
    answer = requests.post(f"{url}/console/sign-in", data={"key": API_KEY}, allow_redirects=False, timeout=30)
    return f"holdfast_console={answer.cookies['holdfast_console']}"


def most_threads(receiver: Process) -> int:
    """Of one of its processes."""
    return max(process.num_threads() for process in receiver.family())


def memory(receiver: Process) -> int:
    """Of all its processes, what they share counted once."""
    return sum(process.memory_full_info().pss for process in receiver.family())


@pytest.mark.parametrize("through", ["directly", "caddy"])
def test_senders_and_operators_are_served_beside_hundreds_of_bad_clients(
    stack: Stack, tmp_path: Path, through: str, record_property: Callable[[str, object], None]
) -> None:
    link = path_of_a_link(stack)
    receiver = stack.receiver()
    with ExitStack() as resources:
        port = resources.enter_context(Caddy(tmp_path, stack.port)).port if through == "caddy" else stack.port
        url, inside = f"http://localhost:{port}", stack.url("")
        cookie, before = signed_in(url), memory(receiver)
        bad = stack.part("tests.support.bad_clients", str(port), link, name="bad-clients")
        senders = [Regulars(deliver(url, size), 0.02) for size in (1_000, 1_000, 200_000)]
        others = {
            "alive": Regulars(see(f"{inside}/livez"), 0.2),
            "ready": Regulars(see(f"{inside}/readyz?only=store,database"), 0.2),
            "API": Regulars(see(f"{url}/api/v1/stats", **KEY), 0.2),
            "console": Regulars(see(f"{url}/console/events", Cookie=cookie), 0.2),
        }
        regulars = [*senders, *others.values()]
        for one in regulars:
            resources.callback(one.stop)
        most, threads, until = before, 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(0.25)
            most, threads = max(most, memory(receiver)), max(threads, most_threads(receiver))
        assert bad.alive(), bad.log.read_text()
    seconds = sorted(second for sender in senders for second in sender.seconds)
    figures = {
        "deliveries": len(seconds),
        "p99 ms": round(1000 * statistics.quantiles(seconds, n=100)[98]),
        "longest ms": {name: round(1000 * max(one.seconds)) for name, one in others.items()},
        "threads": threads,
        "MB more": round((most - before) / MB),
        "MB allowed": round(HELD_BYTES / MB),
    }
    record_property("figures", figures)
    print(through, figures)
    assert [one.refusals() for one in regulars] == [Counter()] * len(regulars)
    assert all(one.outcomes["200"] > 0 for one in regulars)
    assert most - before < HELD_BYTES
    assert threads <= MAX_THREADS
    assert seconds[-1] < 20
    assert not receiver.has_logged("Traceback"), receiver.log.read_text()[-4000:]


def test_senders_and_other_keys_are_served_beside_one_key_that_asks_too_often(stack: Stack) -> None:
    keys = {"API_KEYS": f"{API_KEY},loop:read:{BAD_KEY}", "API_RATE_PER_MINUTE": str(RATE_PER_MINUTE)}
    receiver = stack.receiver(**keys)
    url, began = stack.url(""), time.monotonic()
    in_a_loop = see(f"{url}/api/v1/events?limit=100", Authorization=f"Bearer {BAD_KEY}")
    with ExitStack() as resources:
        bad = [Regulars(in_a_loop, 0) for _ in range(40)]
        good = [
            Regulars(deliver(url, 1_000), 0.05),
            Regulars(see(f"{url}/livez"), 0.2),
            Regulars(see(f"{url}/api/v1/stats", **KEY), GOOD_KEY_PAUSE),
            Regulars(see(f"{url}/console/events", Cookie=signed_in(url)), GOOD_KEY_PAUSE),
        ]
        for one in (*bad, *good):
            resources.callback(one.stop)
        time.sleep(2 * SECONDS)
        threads = most_threads(receiver)
    outcomes = sum((one.outcomes for one in bad), Counter[str]())
    assert {text.partition(" ")[0] for text in outcomes} == {"200", "429"}
    assert outcomes["200"] <= RATE_PER_MINUTE * (1 + (time.monotonic() - began) / 60)
    assert [one.refusals() for one in good] == [Counter()] * len(good)
    assert all(one.outcomes["200"] > 0 for one in good)
    assert threads <= MAX_THREADS
