"""A sender that behaves like Stripe, and like a user of our API: it signs, and tries again until it is answered 2xx."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile

import requests

from cli.stripe_events import signature

TRIES = 60  # two minutes; Stripe repeats a delivery for three days
STALE_SECONDS = 3600
CONNECTIONS = 8
FLAWS = ("wrong secret", "changed body", "old timestamp", "no signature", "garbled header")
DOCUMENT_REQUESTED = "document.requested"  # the type of a delivery that goes to our API instead


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request to make. `flaw` names what is wrong with it; such a delivery must be rejected."""

    event_id: str
    type: str
    body: bytes
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a delivery ended: the last status (0: no answer), the number of tries, and how long the last one took."""

    delivery: Delivery
    status: int
    tries: int
    took_ms: float
    at_ms: float  # when it came, milliseconds since 1970

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300


class Sender:
    """Sends to the receiver at this address. `answers` grows meanwhile. After `stop` nothing more is sent."""

    def __init__(self, address: str, secret: str, api_key: str = "") -> None:
        self.address, self.secret, self.api_key = address, secret, api_key
        self.answers: list[Answer] = []
        self._stopped = threading.Event()
        self._own = threading.local()  # a connection for each thread

    def acknowledged(self) -> dict[str, float]:
        """Event id -> time of its first acknowledgement, in milliseconds since 1970."""
        latest_first = sorted(self.answers, key=lambda answer: -answer.at_ms)
        return {answer.delivery.event_id: answer.at_ms for answer in latest_first if answer.acknowledged}

    def send_all(self, deliveries: Iterable[Delivery], pause_seconds: float) -> None:
        """Start them in this order, several at once, one every `pause_seconds`; returns when all are answered."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            started = []
            for delivery in takewhile(lambda _: not self._stopped.is_set(), deliveries):
                started.append(pool.submit(self.send, delivery))
                time.sleep(pause_seconds)
            for one in started:
                one.result()  # raises its exception

    def send(self, delivery: Delivery) -> None:
        """Send until it is acknowledged, rejected as it should be, or all tries are used up."""
        for attempt in range(1, TRIES + 1):
            if self._stopped.is_set():
                return
            answer = self._post(delivery, attempt)
            if answer.acknowledged or delivery.flaw:
                break
            time.sleep(min(2.0, 0.1 * 2**attempt))
        self.answers.append(answer)

    def stop(self) -> None:
        self._stopped.set()

    def _post(self, delivery: Delivery, attempt: int) -> Answer:
        started = time.perf_counter()
        try:
            status = self._request(delivery).status_code
        except requests.RequestException:
            status = 0
        return Answer(delivery, status, attempt, (time.perf_counter() - started) * 1000, time.time() * 1000)

    def _request(self, delivery: Delivery) -> requests.Response:
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
        body, path, headers = delivery.body, "/stripe-webhook", {"Content-Type": "application/json; charset=utf-8"}
        if delivery.type == DOCUMENT_REQUESTED:
            path = "/api/v1/documents"
            headers |= {"Authorization": f"Bearer {self.api_key}", "Idempotency-Key": delivery.event_id}
        else:
            body, header = self.prepare(delivery, int(time.time()))
            headers |= {"Stripe-Signature": header} if header else {}
        session: requests.Session = self._own.session
        return session.post(self.address + path, body, headers=headers, timeout=10)

    def prepare(self, delivery: Delivery, now: int) -> tuple[bytes, str]:
        """The body and the signature header, with the delivery's flaw."""
        body, good = delivery.body, signature(delivery.body, self.secret, now)
        by_flaw = {
            "": (body, good),
            "wrong secret": (body, signature(body, "whsec_somebody_else", now)),
            "changed body": (body.replace(b'"livemode": false', b'"livemode": true'), good),
            "old timestamp": (body, signature(body, self.secret, now - STALE_SECONDS)),
            "no signature": (body, ""),
            "garbled header": (body, "t=soon;v1=äöü".encode().decode("latin-1")),
        }
        return by_flaw[delivery.flaw]
