"""Servers for the tests on loopback: an HTTP server with given answers, a mail server, Stripe."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from dev.simulators.http import Request, Response, Simulator
from dev.simulators.localstripe_client import StripeCustomer
from dev.stack.servers import Server, answers, free_port, wait_until
from inbox.store import Store

Answer = Response


class Peer(Simulator):
    """A server that answers by a function of the request; it keeps its `requests`."""


def stripe_answers(objects: Mapping[str, Any]) -> Callable[[Request], Answer]:
    """A Stripe that answers each path that contains a key with its object, and any other list as empty."""

    def reply(request: Request) -> Answer:
        found = next((one for part, one in objects.items() if part in request.path), {"object": "list", "data": []})
        return Answer(200, body=json.dumps(found).encode())

    return reply


class Mailbox:
    """A mail server that keeps each mail, or rejects it."""

    def __init__(self, *, smtputf8: bool = True) -> None:
        self.mails: list[tuple[list[str], EmailMessage]] = []  # recipients, message
        self.refusing = False
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port(), enable_SMTPUTF8=smtputf8)
        self.url = f"mailto://127.0.0.1:{self.controller.port}/?from=shop@example.com&mode=insecure"

    def __enter__(self) -> Mailbox:
        self.controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.stop()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.refusing:
            return "451 try again later"
        message = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append((envelope.rcpt_tos, message))
        return "250 taken"


class Stripe(StripeCustomer):
    """localstripe's API, as a shop calls it."""

    KEY = "sk_test_of_the_tests"

    def __init__(self, url: str) -> None:
        super().__init__(url, self.KEY)

    def customer(self, card: str, email: str = "ada@example.com", **fields: str) -> str:
        """A customer whose default payment method is this test card."""
        customer = str(self.post("customers", email=email, **fields)["id"])
        self.set_payment_method(customer, card)
        return customer

    def invoice(self, customer: str, amount: int = 1999) -> str:
        """An unpaid invoice of a subscription that began with one of nothing, so that nothing was collected before."""
        plan = self.post("plans", amount=0, currency="eur", interval="month", **{"product[name]": "Club"})["id"]
        subscription = self.post("subscriptions", **{"customer": customer, "items[0][plan]": plan})["id"]
        self.post("invoiceitems", customer=customer, amount=amount, currency="eur")
        return str(self.post("invoices", customer=customer, subscription=subscription)["id"])

    def attempts(self, customer: str) -> int:
        """The number of attempts to collect money from this customer."""
        return len(self.get(f"charges?customer={customer}")["data"])


@contextmanager
def running_stripe(folder: Path, webhook_url: str) -> Iterator[Stripe]:
    """localstripe in a separate process."""
    port = free_port()
    command = [sys.executable, "-m", "dev.simulators.localstripe", "--port", str(port), "--folder", str(folder)]
    environ = {**os.environ, "STRIPE_WEBHOOK_SECRET": "whsec_of_the_tests_0123456789abcdef"}
    server = Server(folder)
    server.spawn([*command, "--webhook-url", webhook_url], env=environ, cwd=Path(__file__).parents[2])
    try:
        stripe = Stripe(f"http://127.0.0.1:{port}")
        wait_until(lambda: answers(f"{stripe.url}/v1/customers", 401), seconds=120, what="localstripe")
        yield stripe
    finally:
        server.end(signal.SIGTERM)


def stripe_and_record(peer: Peer, store: Store) -> dict[str, str]:
    """The settings of jobs that ask `peer` in Stripe's place, and record events in `store`."""
    port = store.client.connection_pool.connection_kwargs["port"]
    return {"STRIPE_API_KEY": Stripe.KEY, "STRIPE_API_BASE": peer.url, "REDIS_URL": f"redis://127.0.0.1:{port}/0"}
