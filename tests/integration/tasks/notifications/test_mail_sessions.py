"""A connection to a mail server serves several mails of one login, and no mail waits beyond the deadline."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from dev.stack.servers import free_port
from tasks.clients.responses import DeadlineReached
from tasks.notifications import smtp_session
from tasks.notifications.apprise_client import send_message
from tasks.notifications.recipients import Recipient
from tasks.notifications.templates import Rendered
from tests.support.business import at_once
from tests.support.keeping_peer import in_child, trusted_authority
from tests.support.peers import Answer, Peer

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # Apprise's, below Python 3.13

MESSAGE = Rendered("Your order", "Thank you", "<p>Thank you</p>")
SOON_SECONDS = 15  # a machine with other work is slow


class Post:
    """A mail server with logins. `mails` has the connection and the login of each mail."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.mails: list[tuple[Any, Any]] = []
        self.sessions: list[Session] = []
        how: dict[str, Any] = {"authenticator": self._log_in, "auth_require_tls": False, "tls_context": tls}
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port(), **how)

    def __enter__(self) -> Post:
        self.controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.stop()

    def _log_in(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=True, auth_data=data.login)

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.sessions.append(session)
        self.transports = [*getattr(self, "transports", []), server.transport]
        return responses

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append((session.peer, session.auth_data))
        return "250 taken"

    def close_connections(self) -> None:
        """As after a time without a mail."""
        for transport in self.transports:
            self.controller.loop.call_soon_threadsafe(transport.close)

    def send(self, user: str = "shop", mode: str = "insecure", **options: Any) -> bool:
        login = f"{user}:secret@" if user else ""
        url = f"mailto://{login}127.0.0.1:{self.controller.port}/?from=shop@example.com&to=a@example.com&mode={mode}"
        return send_message(url, MESSAGE, "key", Recipient(), **options)

    @property
    def connections(self) -> int:
        return len({peer for peer, _ in self.mails})


@pytest.mark.parametrize("user", ["", "shop"])
def test_mails_of_one_login_share_a_connection(user: str) -> None:
    with Post() as post:
        assert [post.send(user) for _ in range(3)] == [True] * 3
    assert (len(post.mails), post.connections) == (3, 1)


def test_mails_by_starttls_share_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smtp_session._tls_context.cache_clear()
    with trusted_authority(tmp_path, monkeypatch) as context, Post(tls=context) as post:
        assert [post.send(mode="starttls") for _ in range(3)] == [True] * 3
    assert (len(post.mails), post.connections) == (3, 1)
    smtp_session._tls_context.cache_clear()


def test_a_certificate_of_an_unknown_authority_gets_no_mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trusted_authority(tmp_path, monkeypatch) as context:
        monkeypatch.delenv("SSL_CERT_FILE")
        smtp_session._tls_context.cache_clear()
        with Post(tls=context) as post:
            assert not post.send(mode="starttls")
    assert post.mails == []


def test_two_logins_share_no_connection() -> None:
    with Post() as post:
        assert [post.send(user) for user in ("shop", "office", "shop", "office")] == [True] * 4
    assert [login for _, login in post.mails] == [b"shop", b"office", b"shop", b"office"]
    assert post.connections == 2


def test_a_forked_process_has_a_connection_of_its_own() -> None:
    with Post() as post:
        assert post.send()
        assert in_child(lambda: post.send() or 1 / 0) == 0
        assert post.send()
    assert (len(post.mails), post.connections) == (3, 2)


def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    with Post() as post:
        assert post.send()
        post.close_connections()
        assert post.send()
    assert (len(post.mails), post.connections) == (2, 2)


def test_threads_send_each_mail_once() -> None:
    with Post() as post:
        assert at_once(lambda _: [post.send() for _ in range(5)], 8) == [[True] * 5] * 8
    assert len(post.mails) == 40
    assert post.connections <= 8


# --- deadlines --------------------------------------------------------------------------------------------------------


def drip(connection: socket.socket) -> None:
    """A greeting that does not end: each line says that another one follows."""
    while True:
        connection.sendall(b"220-x\r\n")
        time.sleep(0.05)


def greet_and_drip(connection: socket.socket) -> None:
    connection.sendall(b"220 hello\r\n")
    connection.recv(65536)
    while True:
        connection.sendall(b"2")
        time.sleep(0.05)


@contextmanager
def talking(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("talk", [drip, greet_and_drip, lambda _: time.sleep(60)], ids=["greeting", "EHLO", "silence"])
def test_a_slow_mail_server_is_waited_for_until_the_deadline(talk: Callable[[socket.socket], None]) -> None:
    with talking(talk) as port:
        began = time.monotonic()
        with pytest.raises(DeadlineReached, match="in the call of the mail server"):
            url = f"mailto://127.0.0.1:{port}/?from=shop@example.com&to=a@example.com&mode=insecure&cto=60"
            send_message(url, MESSAGE, "key", Recipient(), deadline=began + 0.5)
        assert time.monotonic() - began < SOON_SECONDS


def test_a_slow_service_is_waited_for_until_the_deadline() -> None:
    def slowly(_: object) -> Answer:
        time.sleep(SOON_SECONDS + 1)
        return Answer(200)

    with Peer(slowly) as peer:
        began = time.monotonic()
        with pytest.raises(DeadlineReached, match="in the call of the messaging service"):
            send_message(f"json://{peer.host}/", MESSAGE, "key", Recipient(), deadline=began + 0.5)
        assert time.monotonic() - began < SOON_SECONDS


def test_no_mail_is_sent_after_the_deadline() -> None:
    with Post() as post:
        assert post.send(deadline=time.monotonic() + 60)
        with pytest.raises(DeadlineReached, match="before the call"):
            post.send(deadline=time.monotonic())
    assert len(post.mails) == 1
