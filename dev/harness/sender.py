"""A sender that behaves like Stripe: signs, sends over several connections, tries again until it is answered 2xx."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import requests

from cli.stripe_events import signature

TRIES = 20
STALE_SECONDS = 3600
CONNECTIONS = 8
FLAWS = ("wrong secret", "changed body", "old timestamp", "no signature", "garbled header")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP request to make. `flaw` names what is wrong with it; such a one must be refused."""

    event_id: str
    type: str
    body: bytes
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a delivery ended: the last status (0: no answer), after how many tries, and how long the last one took."""

    delivery: Delivery
    status: int
    tries: int
    took_ms: float
    at_ms: float  # when it came, milliseconds since 1970

    @property
    def acknowledged(self) -> bool:
        return 200 <= self.status < 300


class Sender:
    """Sends to one address. `answers` grows as it goes."""

    def __init__(self, url: str, secret: str) -> None:
        self.url, self.secret = url, secret
        self.answers: list[Answer] = []
        self._own = threading.local()  # a connection for each thread

    def send_all(self, deliveries: Iterable[Delivery], pause_seconds: float) -> None:
        """Begin them in this order, several at once, one every `pause_seconds`; returns when all are answered."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            begun = []
            for delivery in deliveries:
                begun.append(pool.submit(self.send, delivery))
                time.sleep(pause_seconds)
            for one in begun:
                one.result()  # raises what it raised

    def send(self, delivery: Delivery) -> None:
        """Until it is acknowledged, or refused as it should be, or the tries are used up."""
        for attempt in range(1, TRIES + 1):
            answer = self._post(delivery, attempt)
            if answer.acknowledged or delivery.flaw:
                break
            time.sleep(min(2.0, 0.1 * 2**attempt))
        self.answers.append(answer)

    def _post(self, delivery: Delivery, attempt: int) -> Answer:
        begin = time.perf_counter()
        try:
            status = self.ask(delivery).status_code
        except requests.RequestException:
            status = 0
        return Answer(delivery, status, attempt, (time.perf_counter() - begin) * 1000, time.time() * 1000)

    def ask(self, delivery: Delivery) -> requests.Response:
        """Send it once. Raises requests.RequestException where no answer comes."""
        body, header = self.prepare(delivery, int(time.time()))
        headers = {"Content-Type": "application/json; charset=utf-8"} | ({"Stripe-Signature": header} if header else {})
        return self.session().post(self.url, body, headers=headers, timeout=10)

    def prepare(self, delivery: Delivery, now: int) -> tuple[bytes, str]:
        """The body and the signature header, spoilt as the delivery's flaw says."""
        body, good = delivery.body, signature(delivery.body, self.secret, now)
        match delivery.flaw:
            case "":
                return body, good
            case "wrong secret":
                return body, signature(body, "whsec_somebody_else", now)
            case "changed body":
                return body.replace(b'"livemode": false', b'"livemode": true'), good
            case "old timestamp":
                return body, signature(body, self.secret, now - STALE_SECONDS)
            case "no signature":
                return body, ""
            case "garbled header":
                return body, "t=soon;v1=äöü".encode().decode("latin-1")
        raise ValueError(f"no such flaw: {delivery.flaw}")

    def session(self) -> requests.Session:
        """This thread's connection."""
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
        session: requests.Session = self._own.session
        return session
