"""Connections to whichever server the Sentinels call the master now."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedConnection

from settings.sentinel_url import SentinelUrl


class Answer(NamedTuple):
    """What one Sentinel says. The newer of two configurations is the greater answer."""

    config_epoch: int
    host: str
    port: int


class Sentinels:
    """Asks Sentinels, each once, until most have answered, and believes the newest configuration among the answers.

    The first to answer may be one that was away itself while the others chose a new master: until they have told it,
    which takes 2 s and more, it names the old one, which may be back too and still take itself for the master.

    It stands in for redis.sentinel.Sentinel, which believes the first, tries each of them several times, so that no
    answer comes within 2 seconds, and whose list of Sentinels loses members when two threads reorder it at once
    (redis-py 8.1). The commands are those of https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/.
    """

    def __init__(self, url: SentinelUrl, timeout_seconds: float) -> None:
        """A Sentinel has a quarter of the time that the master has: it has nothing to write to a disk."""
        patience = timeout_seconds / 4
        self._sentinels = [
            redis.Redis(
                host=host,
                port=port,
                socket_timeout=patience,
                socket_connect_timeout=patience,
                retry=Retry(NoBackoff(), 0),
                **url.sentinel_login,
            )
            for host, port in url.hosts
        ]

    def discover_master(self, service: str) -> tuple[str, int]:
        """Its address; what redis-py's pool calls before each new connection. Raises MasterNotFoundError."""
        answers: dict[redis.Redis, Answer] = {}
        sentinels = self._sentinels
        for sentinel in sentinels:
            if answer := _ask(sentinel, service):
                answers[sentinel] = answer
            if len(answers) > len(sentinels) // 2:
                break
        if not answers:
            raise MasterNotFoundError(f"no Sentinel says who is the master of {service}")
        # Those that answered are asked first: one that hangs costs its time once. A new list, for other threads' sake.
        self._sentinels = sorted(sentinels, key=lambda one: one not in answers)
        newest = max(answers.values())
        return newest.host, newest.port


def _ask(sentinel: redis.Redis, service: str) -> Answer | None:
    """The address is of its epoch as soon as the chosen replica is a master, before the others follow it."""
    both: Any = sentinel.pipeline(transaction=False)
    both.sentinel_get_master_addr_by_name(service, return_responses=True)
    both.sentinel_master(service, return_responses=True)
    try:
        address, master = both.execute()
    except redis.RedisError:
        return None
    return Answer(master["config-epoch"], address[0].decode(), address[1])


class _Connection(SentinelManagedConnection):
    def connect(self) -> None:
        """Once: the command that needs the connection is tried again as a whole, and a sender waits for both."""
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
