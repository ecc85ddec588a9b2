"""Clients without a key, however many: what they hold is not what those with a key need."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from uvicorn import Server

from dev.stack.servers import Valkey, free_port, wait_until
from settings import Settings, load
from tasks.db.migrate import migrate
from tests.support.running_receiver import running_receiver
from tests.support.signed_deliveries import API_KEY, STRIPE_SECRET
from web import flask_host

KEY = {"Authorization": f"Bearer {API_KEY}"}
MB = 1024 * 1024


@pytest.fixture
def settings(valkey: Valkey, tmp_path: Path) -> Settings:
    environ = {"REDIS_URL": valkey.url, "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "API_KEYS": API_KEY}
    return load({**environ, "DATABASE_URL": f"sqlite:///{tmp_path}/x.db", "PORT": str(free_port())})


@pytest.fixture
def server(settings: Settings, valkey: Valkey) -> Iterator[Server]:
    migrate(settings.database_url)
    with running_receiver(settings) as server:
        yield server
    valkey.resume()


def url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.config.port}{path}"


@contextmanager
def unfinished(server: Server, path: str, size: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections, each with a request whose body lacks its last byte."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    socks = [socket.create_connection(("127.0.0.1", server.config.port), timeout=10) for _ in range(count)]
    try:
        for sock in socks:
            sock.sendall(head + b"x" * (size - 1))
        yield socks
    finally:
        for sock in socks:
            sock.close()


def start_document(server: Server) -> int:
    body = {"document_id": "doc", "options": {"pad": "x" * (MB // 2)}}
    return requests.post(url(server, "/api/v1/documents"), json=body, headers=KEY, timeout=20).status_code


@pytest.mark.parametrize(("path", "status"), [("/api/v1/documents", b"401"), ("/nowhere", b"404")])
def test_the_body_of_a_stranger_is_neither_awaited_nor_kept(server: Server, path: str, status: bytes) -> None:
    with unfinished(server, path, MB, 80) as socks:
        assert [sock.recv(1000).split(b" ")[1] for sock in socks] == [status] * 80
        assert start_document(server) == 202


def test_a_wrong_key_holds_no_more_memory_than_none(server: Server) -> None:
    with unfinished(server, "/api/v1/documents HTTP/1.1\r\nAuthorization: Bearer wrong\r\nX:", MB, 80):
        assert start_document(server) == 202


def sign_in(server: Server) -> requests.Session:
    session = requests.Session()
    session.post(url(server, "/console/sign-in"), data={"key": API_KEY}, timeout=20).raise_for_status()
    return session


def test_whoever_has_signed_out_is_a_stranger(server: Server) -> None:
    """Also for whoever copied the cookie: its bodies are neither awaited nor kept."""
    session = sign_in(server)
    cookie = f"Cookie: holdfast_console={session.cookies['holdfast_console']}"
    path = f"/console/jobs/replay HTTP/1.1\r\n{cookie}\r\nX:"
    with unfinished(server, path, 1000, 1) as (known,):
        known.settimeout(0.5)
        with pytest.raises(TimeoutError):
            known.recv(1000)
    token = re.findall(r'name="form_token" value="(\w+)"', session.get(url(server, "/console/"), timeout=20).text)[0]
    session.post(url(server, "/console/sign-out"), data={"form_token": token}, timeout=20).raise_for_status()
    with unfinished(server, path, 1000, 1) as (stranger,):
        assert stranger.recv(1000).split(b" ")[1] == b"302"


def test_unfinished_sign_ins_do_not_keep_an_operator_out(server: Server) -> None:
    with unfinished(server, "/console/sign-in", flask_host.FORM_BYTES, 200) as socks:
        form = {"key": API_KEY, "pad": "x" * 10_000}
        answer = requests.post(url(server, "/console/sign-in"), data=form, allow_redirects=False, timeout=20)
        assert answer.status_code == 302
        assert socks[0].recv(1000).split(b" ")[1] == b"503"
        cookies = {"holdfast_console": answer.cookies["holdfast_console"]}
        assert requests.get(url(server, "/console/events"), cookies=cookies, timeout=20).status_code == 200


def test_a_form_over_the_limit_is_413(server: Server) -> None:
    answer = requests.post(url(server, "/console/sign-in"), data={"key": "x" * flask_host.FORM_BYTES}, timeout=20)
    assert (answer.status_code, answer.json()) == (413, {"error": "the body is larger than 16384 bytes"})


def test_strangers_take_no_thread_of_those_who_have_a_key(server: Server, valkey: Valkey) -> None:
    """Each wrong key waits for the store, which counts it."""
    answered: list[int] = []

    def guess() -> None:
        wrong = {"Authorization": "Bearer wrong"}
        answered.append(requests.get(url(server, "/api/v1/stats"), headers=wrong, timeout=60).status_code)

    valkey.freeze()
    guessers = [threading.Thread(target=guess) for _ in range(100)]
    for guesser in guessers:
        guesser.start()
    wait_until(lambda: server.server_state.total_requests >= 8, seconds=20, what="the first of them to be answered")
    assert requests.get(url(server, "/api/v1/documents"), headers=KEY, timeout=20).status_code == 200
    before = len(answered)
    valkey.resume()
    for guesser in guessers:
        guesser.join()
    assert before < 100, "they were still waiting"


def test_more_strangers_than_there_are_places_get_503(
    server: Server, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flask_host, "MAX_STRANGERS", 0)
    answer = requests.get(url(server, "/console/sign-in"), timeout=20)
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
    assert requests.get(url(server, "/api/v1/documents"), headers=KEY, timeout=20).status_code == 200
