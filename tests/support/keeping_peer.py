"""A server that keeps its connections open, counts them, and can close them or speak TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import stripe
import trustme

from dev.simulators.http import Request, Response
from inbox.event import Event
from settings import Settings, load
from tasks.clients import document_service, operator_peers, safe_http, standard_webhook
from tasks.clients import stripe as stripe_client
from tasks.handler import Attempt
from tests.support.business import HANDOFF_SECRET, NOW
from tests.support.peers import Peer

INVOICE = b'{"id": "in_1", "object": "invoice", "status": "open", "task_id": "t", "customer": "cus_1"}'


class KeepingPeer(Peer):
    """HTTP/1.1. `connections` is how many were accepted."""

    protocol_version = "HTTP/1.1"

    def __init__(self, reply: Callable[[Request], Response] = lambda _: Response(200, body=INVOICE)) -> None:
        super().__init__(reply)
        self.accepted: list[socket.socket] = []
        self.scheme = "http"

    def get_request(self) -> Any:
        found = super().get_request()
        self.accepted.append(found[0])
        return found

    @property
    def connections(self) -> int:
        return len(self.accepted)

    @property
    def base(self) -> str:
        return f"{self.scheme}://{self.host}"

    def speak_tls(self, context: ssl.SSLContext) -> None:
        """Before the server is started."""
        self.socket, self.scheme = context.wrap_socket(self.socket, server_side=True), "https"

    def close_connections(self) -> None:
        """As a server does with connections that have been idle for too long."""
        for connection in self.accepted:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


@contextmanager
def trusted_authority(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    """All clients trust a new authority; yields the context of a server on 127.0.0.1 with its certificate."""
    authority, path = trustme.CA(), str(folder / "ca.pem")
    authority.cert_pem.write_to_path(path)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, path)
    monkeypatch.setattr(stripe, "ca_bundle_path", path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    forget_environment()
    yield context
    forget_environment()


def forget_environment() -> None:
    safe_http._tls_context.cache_clear()
    operator_peers.find_server.cache_clear()


def settings_for(base: str, **more: str) -> Settings:
    """Every client calls the server at this URL."""
    named = {"STRIPE_API_KEY": "sk_test_of_the_tests", "STRIPE_API_BASE": base, "DOC_SERVICE_URL": base}
    return load({**named, "PUBLIC_URL": "https://x", "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1", **more})


def attempt_with(settings: Settings, deadline: float = float("inf"), body: bytes = b'{"id": "evt_1"}') -> Attempt:
    event = Event("stripe", "evt_1", "x", body)
    return Attempt("stripe:evt_1:x", event, {}, 1, NOW, settings, lambda: None, deadline=deadline)


def _submit(attempt: Attempt, base: str) -> None:
    request = document_service.ProcessRequest("d", "https://x", {})
    document_service.request_processing(attempt.settings, request, "key", NOW, attempt.deadline)


def _handoff(attempt: Attempt, base: str) -> None:
    receiver = standard_webhook.Receiver("the agent", f"{base}/hook", (HANDOFF_SECRET,))
    standard_webhook.post(attempt, receiver, "{}")


def _download(attempt: Attempt, base: str) -> None:
    with safe_http.get_stream(f"{base}/file", attempt.settings, deadline=attempt.deadline) as stream:
        for _ in stream.chunks():
            pass


CALLS: dict[str, Callable[[Attempt, str], Any]] = {
    "a fetch from Stripe": lambda attempt, _: stripe_client.fetch_invoice(attempt, "in_1"),
    "a payment at Stripe": lambda attempt, _: stripe_client.pay_invoice(attempt, "in_1", "key"),
    "the status of a document": lambda attempt, _: document_service.fetch_status(
        attempt.settings, "t", NOW, attempt.deadline
    ),
    "the start of a document": _submit,
    "a handoff": _handoff,
    "a download": _download,
}
GETS = ["a fetch from Stripe", "the status of a document", "a download"]
POSTS = ["a payment at Stripe", "the start of a document", "a handoff"]


def in_child(work: Callable[[], Any]) -> int:
    """Run this in a forked process; its exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
