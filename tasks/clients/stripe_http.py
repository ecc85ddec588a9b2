"""The HTTP client of Stripe's library: kept connections, at a fifth of the CPU of the library's own client."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import stripe

from tasks.clients.http_connection import headers_of
from tasks.clients.operator_peers import CALL_ERRORS, call, find_server, read_body
from tasks.clients.responses import NoAnswer, connection_errors, end_of_call
from tasks.payloads import make_storable
from telemetry import tracing

CREDENTIALS = ("Authorization", "Stripe-Account", "Stripe-Context")

stripe.enable_telemetry = False  # it would send the id of one account's request with another's


class HttpClient(stripe.HTTPClient):
    """Sends the library's requests to the API at `base` over kept connections, by the `deadline` (time.monotonic()).

    Connections are not shared between API keys or accounts.
    """

    name = "http.client"

    def __init__(self, base: str, deadline: float) -> None:
        super().__init__()
        self._base, self._deadline = base, deadline

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[str, int, Mapping[str, str]]:
        """Returns body, status and headers. Raises stripe.APIConnectionError, DeadlineReached."""
        until = end_of_call("Stripe", math.inf, self._deadline)
        server, sent = find_server(self._base, stripe.ca_bundle_path), headers or {}
        body = None if post_data is None else str(post_data).encode()
        request = server.request(method.upper(), url.removeprefix(self._base), sent, body)
        credentials = tuple(sent.get(name) for name in CREDENTIALS)
        with tracing.call(request.method, url) as span, self._connection_errors():
            with call(server, request, credentials, until) as connection:
                text = b"".join(read_body(connection.response)).decode(errors="replace")
                response = connection.response
            span.answered(response.status)
            return make_storable(text), response.status, headers_of(response)

    @contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            with connection_errors("Stripe", *CALL_ERRORS, deadline=self._deadline):
                yield
        except NoAnswer as error:
            raise stripe.APIConnectionError(str(error)) from None  # type: ignore[no-untyped-call]
