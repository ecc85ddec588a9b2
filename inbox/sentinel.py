"""Connections to whichever server the Sentinels call the master now."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedConnection

from sentinel_url import SentinelUrl


class Sentinels:
    """Asks one Sentinel after the other, each once; the one that answered last is asked first.

    It stands in for redis.sentinel.Sentinel, which tries each of them several times, so that no answer comes within
    2 seconds, and whose list of Sentinels loses members when two threads reorder it at once (redis-py 8.1). The command
    is the one that https://redis.io/docs/latest/develop/reference/sentinel-clients/ prescribes.
    """

    def __init__(self, url: SentinelUrl, timeout_seconds: float) -> None:
        self._first = 0
        self._sentinels = [
            redis.Redis(
                host=host,
                port=port,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 0),
                **url.sentinel_login,
            )
            for host, port in url.hosts
        ]

    def discover_master(self, service: str) -> tuple[str, int]:
        """Its address; what redis-py's pool calls before each new connection. Raises MasterNotFoundError."""
        first, count = self._first, len(self._sentinels)
        for which in (at % count for at in range(first, first + count)):
            if address := self._ask(which, service):
                self._first = which
                return address
        raise MasterNotFoundError(f"no Sentinel says who is the master of {service}")

    def _ask(self, which: int, service: str) -> tuple[str, int] | None:
        try:
            found: Any = self._sentinels[which].execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        except redis.RedisError:
            return None
        return (found[0].decode(), int(found[1])) if found else None


class _Connection(SentinelManagedConnection):
    def connect(self) -> None:
        """Once: the command that needs the connection is tried again as a whole, and a sender waits for both."""
        if not self._sock:
            self.connect_to(self.connection_pool.get_master_address())  # type: ignore[no-untyped-call]


def client(url: SentinelUrl, *, timeout_seconds: float, **options: Any) -> redis.Redis:
    """A client of the master. A Sentinel has a quarter of `timeout_seconds`: it has nothing to write to a disk."""
    pool = SentinelConnectionPool(
        url.service,
        Sentinels(url, timeout_seconds / 4),
        connection_class=_Connection,
        db=url.db,
        username=url.username or None,
        password=url.password or None,
        **options,
    )
    return redis.Redis.from_pool(pool)
