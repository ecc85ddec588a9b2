"""Connections to the server that is the master according to the Sentinels."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedConnection

from settings.sentinel_url import SentinelUrl


class Reply(NamedTuple):
    """The reply of one Sentinel. Of two replies, the one with the newer configuration is the greater."""

    config_epoch: int
    host: str
    port: int


class Sentinels:
    """Asks each Sentinel once until a majority has replied, and uses the newest configuration among the replies.

    The first to reply may have been down while the others elected a new master. Until they have updated it, which takes
    2 s and more, it names the old master, which may be back as well and still act as master.

    Replaces redis.sentinel.Sentinel, which uses the first reply, asks each Sentinel several times and so needs over
    2 seconds, and whose list of Sentinels loses members when two threads reorder it at once (redis-py 8.1). The
    commands are those of https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/.
    """

    def __init__(self, url: SentinelUrl, timeout_seconds: float) -> None:
        """A Sentinel must reply within a quarter of the master's time: it does not write to a disk."""
        timeout = timeout_seconds / 4
        self._sentinels = [
            redis.Redis(
                host=host,
                port=port,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 0),
                **url.sentinel_login,
            )
            for host, port in url.hosts
        ]

    def discover_master(self, service: str) -> tuple[str, int]:
        """The master's host and port; redis-py's pool calls this before each new connection. Raises
        MasterNotFoundError."""
        replies: dict[redis.Redis, Reply] = {}
        sentinels = self._sentinels
        for sentinel in sentinels:
            if reply := _ask(sentinel, service):
                replies[sentinel] = reply
            if len(replies) > len(sentinels) // 2:
                break
        if not replies:
            raise MasterNotFoundError(f"no Sentinel knows the master of {service}")
        # Those that replied are asked first next time, so one that hangs delays only one request. A new list, because
        # other threads may be iterating over the old one.
        self._sentinels = sorted(sentinels, key=lambda sentinel: sentinel not in replies)
        newest = max(replies.values())
        return newest.host, newest.port


def _ask(sentinel: redis.Redis, service: str) -> Reply | None:
    """The address belongs to the epoch as soon as the elected replica is master, before the others follow it."""
    pipe: Any = sentinel.pipeline(transaction=False)
    pipe.sentinel_get_master_addr_by_name(service, return_responses=True)
    pipe.sentinel_master(service, return_responses=True)
    try:
        address, master = pipe.execute()
    except redis.RedisError:
        return None
    return Reply(master["config-epoch"], address[0].decode(), address[1])


class _Connection(SentinelManagedConnection):
    def connect(self) -> None:
        """Tries once: the command that needs the connection is itself retried, and a source waits for pipe."""
        if not self._sock:
            self.connect_to(self.connection_pool.get_master_address())  # type: ignore[no-untyped-call]


def client(url: SentinelUrl, *, timeout_seconds: float, **options: Any) -> redis.Redis:
    """A client of the master."""
    pool = SentinelConnectionPool(
        url.service,
        Sentinels(url, timeout_seconds),
        connection_class=_Connection,
        **url.login,
        **options,
    )
    return redis.Redis.from_pool(pool)
