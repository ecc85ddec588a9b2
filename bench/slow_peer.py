"""A server that answers like Stripe's API, LATENCY_SECONDS after each request: `python -m bench.slow_peer PORT`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import uvicorn

from bench.events import subscription

LATENCY_SECONDS = 0.2
SUBSCRIPTIONS = "/v1/subscriptions/sub_"
CALLS = "/calls"  # the number of subscriptions that were fetched
EMPTY_LIST = {"object": "list", "data": [], "has_more": False}

fetched: Counter[str] = Counter()  # by path


async def app(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    answer = await _answer(scope["path"])
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _answer(path: str) -> object:
    if path == CALLS:
        return fetched.total()
    await asyncio.sleep(LATENCY_SECONDS)
    if not path.startswith(SUBSCRIPTIONS):
        return EMPTY_LIST
    fetched[path] += 1
    return subscription(path.removeprefix(SUBSCRIPTIONS), int(time.time()))


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
