"""Stripe and our API's user in one: both send again whatever is not answered 2xx."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from itertools import takewhile

import requests

from dev.harness.sender import Answer, Delivery, Sender
from dev.harness.traffic import DOCUMENT_REQUESTED


class Stopped(Exception):
    """Nobody waits for this delivery any more."""


class StoppableSender(Sender):
    """Can be told to send nothing more, when the run is interrupted."""

    def __init__(self, address: str, secret: str, api_key: str) -> None:
        super().__init__(f"{address}/stripe-webhook", secret)
        self._api, self._api_key = f"{address}/api/v1/documents", api_key
        self._over = threading.Event()

    def send_all(self, deliveries: Iterable[Delivery], pause_seconds: float) -> None:
        super().send_all(takewhile(lambda _: not self._over.is_set(), deliveries), pause_seconds)

    def send(self, delivery: Delivery) -> None:
        with suppress(Stopped):
            super().send(delivery)

    def ask(self, delivery: Delivery) -> requests.Response:
        if delivery.type != DOCUMENT_REQUESTED:
            return super().ask(delivery)
        headers = {"Authorization": f"Bearer {self._api_key}", "Idempotency-Key": delivery.event_id}
        return self.session().post(self._api, delivery.body, headers=headers, timeout=10)

    def _post(self, delivery: Delivery, attempt: int) -> Answer:
        if self._over.is_set():
            raise Stopped
        return super()._post(delivery, attempt)

    def stop(self) -> None:
        self._over.set()
