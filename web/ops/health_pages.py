"""/livez and /readyz, answered by the event loop: no other request, however slow, delays them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from a2wsgi.asgi_typing import HTTPScope, Send
from sqlalchemy import Engine
from werkzeug.exceptions import MethodNotAllowed

from inbox.store import Store
from settings import Settings
from web.errors import HttpError, error_response
from web.ops.health import check_broker, check_database, check_store, check_sweep, loss_window, run_check
from web.responses import json_response, send_response

HEALTH_PATHS = ("/livez", "/readyz")
FRESH_SECONDS = 1.0
TIMEOUT_SECONDS = 2.0


class HealthPages:
    """The health checks for orchestrators and load balancers, of one process."""

    def __init__(self, settings: Settings, store: Store, engine: Engine) -> None:
        checks: dict[str, Callable[[], str]] = {
            "store": lambda: check_store(store, settings),
            "broker": check_broker,
            "database": lambda: check_database(engine),
            "sweep": lambda: check_sweep(store),
        }
        threads = ThreadPoolExecutor(len(checks), "health")
        self._checks = {name: SharedCheck(check, threads) for name, check in checks.items()}
        self._loss_window = loss_window(settings)

    async def __call__(self, scope: HTTPScope, send: Send) -> None:
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise MethodNotAllowed(["GET", "HEAD"])
            alive = scope["path"] == "/livez"
            status, answer = (200, {"alive": True}) if alive else await self._readiness(scope["query_string"])
        except Exception as error:
            await send_response(send, json_response(*error_response(error)))
        else:
            await send_response(send, json_response(status, json.dumps(answer).encode(), {}))

    async def _readiness(self, query: bytes) -> tuple[int, dict[str, Any]]:
        """Whether the whole stack works. `?only=store`, for a load balancer: whether this receiver can accept events.

        The store suffices to accept and keep every event; the other checks decide when its jobs run.
        """
        only = parse_qs(query.decode("latin-1")).get("only", [",".join(self._checks)])[0]
        names = list(dict.fromkeys(only.split(",", len(self._checks))))
        if not set(names) <= set(self._checks):
            raise HttpError(f"only must be one or more of {','.join(self._checks)}")
        results = await asyncio.gather(*(self._checks[name].result() for name in names))
        ready = all(result == "ok" for result in results)
        answer = {"ready": ready, "checks": dict(zip(names, results, strict=True)), "loss_window": self._loss_window}
        return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, answer


class SharedCheck:
    """A check that may block: it runs in a thread, never twice at once and at most once a second, however many ask."""

    def __init__(self, check: Callable[[], str], threads: Executor) -> None:
        self._check, self._threads = check, threads
        self._run: asyncio.Future[str] | None = None
        self._started_at = self._fresh_until = 0.0

    async def result(self) -> str:
        """What is wrong, or ok; at most FRESH_SECONDS old. A check that has run for TIMEOUT_SECONDS is a failure."""
        loop = asyncio.get_running_loop()
        if self._run is None or (self._run.done() and loop.time() >= self._fresh_until):
            self._started_at = loop.time()
            self._run = loop.run_in_executor(self._threads, run_check, self._check)
            self._run.add_done_callback(self._ended)
        await asyncio.wait([self._run], timeout=max(0.0, self._started_at + TIMEOUT_SECONDS - loop.time()))
        return self._run.result() if self._run.done() else f"does not answer within {TIMEOUT_SECONDS:g} s"

    def _ended(self, run: asyncio.Future[str]) -> None:
        self._fresh_until = run.get_loop().time() + FRESH_SECONDS
