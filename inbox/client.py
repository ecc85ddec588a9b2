"""The connection to Redis."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from inbox import sentinel
from settings import sentinel_url


def connect(url: str, *, timeout_seconds: float = 0.8) -> redis.Redis:
    """A client whose commands succeed or fail within twice `timeout_seconds`: once to connect, once to run.

    A broken connection is replaced and the command sent again; after a timeout it is not.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    if behind := sentinel_url.parse(url):
        return sentinel.client(behind, timeout_seconds=timeout_seconds, **options)
    return redis.Redis.from_url(url, **options)
